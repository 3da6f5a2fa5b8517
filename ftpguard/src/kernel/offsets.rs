//! Where the fields of tracepoint records lie on the running kernel.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ftpguard_common::abi::{ReadOffsets, StateOffsets, TracepointOffsets};

use super::error::KernelError;

/// Where tracefs is mounted.
pub fn find_tracefs() -> Result<PathBuf, KernelError> {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.join("events").is_dir())
        .ok_or(KernelError::NoTracefs)
}

/// Reads the offsets of every field the kernel side needs from `events/*/*/format`.
pub fn read_offsets(tracefs: &Path) -> Result<TracepointOffsets, KernelError> {
    let state = Format::read(tracefs, "sock/inet_sock_set_state")?;
    let read = Format::read(tracefs, "tcp/tcp_rcv_space_adjust")?;
    let new_task = Format::read(tracefs, "task/task_newtask")?;
    Ok(TracepointOffsets {
        state: StateOffsets {
            socket: state.offset("skaddr", 8)?,
            old_state: state.offset("oldstate", 4)?,
            new_state: state.offset("newstate", 4)?,
            source_port: state.offset("sport", 2)?,
            destination_port: state.offset("dport", 2)?,
            protocol: state.offset("protocol", 2)?,
            source: state.offset("saddr_v6", 16)?,
            destination: state.offset("daddr_v6", 16)?,
        },
        read: ReadOffsets {
            source_port: read.offset("sport", 2)?,
            destination_port: read.offset("dport", 2)?,
            source: read.offset("saddr_v6", 16)?,
            destination: read.offset("daddr_v6", 16)?,
        },
        new_task_pid: new_task.offset("pid", 4)?,
        new_task_flags: new_task.offset("clone_flags", 8)?,
    })
}

/// The text of one tracepoint's `format` file.
struct Format {
    name: &'static str,
    text: String,
}

impl Format {
    fn read(tracefs: &Path, name: &'static str) -> Result<Self, KernelError> {
        let path = tracefs.join("events").join(name).join("format");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self { name, text }),
            Err(error) => Err(KernelError::Tracepoint {
                name: name.to_owned(),
                what: format!("{} cannot be read: {error}", path.display()),
            }),
        }
    }

    /// The offset of a field, whose size must be as the kernel side reads it.
    fn offset(&self, field: &str, size: u32) -> Result<u32, KernelError> {
        let fault = |what: String| KernelError::Tracepoint {
            name: self.name.to_owned(),
            what,
        };
        for line in self.text.lines() {
            let Some(found) = FieldLine::parse(line) else {
                continue;
            };
            if found.name != field {
                continue;
            }
            if found.size != size {
                return Err(fault(format!(
                    "field {field} has {} bytes here instead of {size}; this kernel is not supported",
                    found.size
                )));
            }
            return Ok(found.offset);
        }
        Err(fault(format!(
            "has no field {field} here; this kernel is not supported"
        )))
    }
}

/// One line like `field:__u8 saddr[4]; offset:32; size:4; signed:0;`, with tabs between.
struct FieldLine<'a> {
    name: &'a str,
    offset: u32,
    size: u32,
}

impl<'a> FieldLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut parts = line.trim().split(';').map(str::trim);
        let declaration = parts.next()?.strip_prefix("field:")?;
        let offset = parts.next()?.strip_prefix("offset:")?.parse().ok()?;
        let size = parts.next()?.strip_prefix("size:")?.parse().ok()?;
        let name = declaration.rsplit(' ').next()?;
        let name = name.split('[').next()?;
        Some(Self { name, offset, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_line_gives_name_offset_and_size() {
        let line = "\tfield:__u8 saddr_v6[16];\toffset:40;\tsize:16;\tsigned:0;";
        let field = FieldLine::parse(line).expect("a field");
        assert_eq!((field.name, field.offset, field.size), ("saddr_v6", 40, 16));
        assert!(FieldLine::parse("print fmt: \"family=%s\"").is_none());
    }

    #[test]
    fn a_missing_field_is_named() {
        let format = Format {
            name: "sock/inet_sock_set_state",
            text: "\tfield:int oldstate;\toffset:16;\tsize:4;\tsigned:1;\n".to_owned(),
        };
        assert_eq!(format.offset("oldstate", 4).ok(), Some(16));
        for (field, size) in [("newstate", 4), ("oldstate", 8)] {
            let error = format.offset(field, size).expect_err("refused").to_string();
            assert!(error.contains(field) && error.contains("sock/inet_sock_set_state"));
        }
    }
}
