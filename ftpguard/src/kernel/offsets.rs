//! Where the fields of the kernel's own structures lie on the running kernel, from its type
//! information (BTF).

use std::path::Path;

use btf_rs::{Btf, Struct, Type};
use ftpguard_common::abi::KernelOffsets;

use super::error::KernelError;

/// Where the kernel shows its types.
const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Reads the offset of every field the kernel side needs.
pub(super) fn read_offsets() -> Result<KernelOffsets, KernelError> {
    let types = Types::read(Path::new(TYPES))?;
    let socket = types.structure("sock")?;
    let inet = types.structure("inet_sock")?;
    let tcp = types.structure("tcp_sock")?;
    let task = types.structure("task_struct")?;
    Ok(KernelOffsets {
        family: types.offset(&socket, "skc_family")?,
        protocol: types.offset(&socket, "sk_protocol")?,
        source_port: types.offset(&inet, "inet_sport")?,
        destination_port: types.offset(&socket, "skc_dport")?,
        source_v4: types.offset(&inet, "inet_saddr")?,
        destination_v4: types.offset(&socket, "skc_daddr")?,
        // A kernel without IPv6 has no sockets whose family asks for these.
        source_v6: types.offset(&socket, "skc_v6_rcv_saddr").unwrap_or(0),
        destination_v6: types.offset(&socket, "skc_v6_daddr").unwrap_or(0),
        task_pid: types.offset(&task, "pid")?,
        network: types.offset(&socket, "skc_net")?,
        owner: types.offset(&types.structure("net")?, "user_ns")?,
        level: types.offset(&types.structure("user_namespace")?, "level")?,
        // A kernel without Multipath TCP has no such sockets.
        multipath: types.offset(&tcp, "is_mptcp").unwrap_or(0),
    })
}

/// The types of a kernel.
struct Types(Btf);

/// A structure of the kernel.
struct Structure {
    name: &'static str,
    layout: Struct,
}

impl Types {
    fn read(path: &Path) -> Result<Self, KernelError> {
        let types = Btf::from_file(path).map_err(|error| KernelError::Types {
            what: format!("{} cannot be read: {error}", path.display()),
        })?;
        Ok(Self(types))
    }

    fn structure(&self, name: &'static str) -> Result<Structure, KernelError> {
        self.0
            .resolve_types_by_name(name)
            .unwrap_or_default()
            .into_iter()
            .find_map(|found| {
                if let Type::Struct(layout) = found {
                    return Some(Structure { name, layout });
                }
                None
            })
            .ok_or_else(|| KernelError::Types {
                what: format!("this kernel has no struct {name}"),
            })
    }

    /// The offset of a field in bytes.
    fn offset(&self, structure: &Structure, field: &str) -> Result<u32, KernelError> {
        self.bit_offset(&structure.layout, field)
            .filter(|bits| bits % 8 == 0)
            .map(|bits| bits / 8)
            .ok_or_else(|| KernelError::Types {
                what: format!(
                    "this kernel's struct {} has no field {field}",
                    structure.name
                ),
            })
    }

    /// Looks for a field in a structure and in what lies inside it: unions and structures without
    /// a name, and `struct sock_common`, in which `struct sock` begins.
    fn bit_offset(&self, layout: &Struct, field: &str) -> Option<u32> {
        for member in &layout.members {
            let name = self.0.resolve_name(member).unwrap_or_default();
            if name == field {
                return Some(member.bit_offset());
            }
            if !name.is_empty() && name != "__sk_common" {
                continue;
            }
            if let Ok(Type::Struct(inner) | Type::Union(inner)) =
                self.0.resolve_chained_type(member)
                && let Some(bits) = self.bit_offset(&inner, field)
            {
                return Some(member.bit_offset() + bits);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_lies_as_the_kernel_has_it_since_long() {
        let offsets = read_offsets().expect("this kernel shows its types");
        // The first words of struct sock_common have not moved since Linux 3.9.
        assert_eq!(offsets.destination_v4, 0);
        assert_eq!(offsets.destination_port, 12);
        assert_eq!(offsets.family, 16);
        let more = [
            offsets.protocol,
            offsets.source_port,
            offsets.source_v4,
            offsets.source_v6,
            offsets.destination_v6,
            offsets.task_pid,
            offsets.network,
            offsets.owner,
            offsets.level,
        ];
        assert!(more.iter().all(|offset| *offset > 16), "{offsets:?}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let types = Types::read(Path::new(TYPES)).expect("this kernel shows its types");
        let socket = types.structure("sock").expect("there");
        let error = types.offset(&socket, "skc_moon").expect_err("refused");
        assert!(
            error
                .to_string()
                .contains("struct sock has no field skc_moon")
        );
        let error = types.structure("moon").err().expect("refused");
        assert!(error.to_string().contains("struct moon"));
        let error = Types::read(Path::new("/nowhere")).err().expect("refused");
        assert!(error.to_string().contains("/nowhere"));
    }
}
