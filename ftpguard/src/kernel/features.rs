//! What kernels differ in, found out by trying.
//!
//! Distributions carry features back, and build kernels without some: a version number proves
//! nothing. So each feature is tried, in the form in which it is used, and the guard does with
//! less where the kernel refuses. `status` shows what it did with.

use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType},
};

use super::{KernelError, attach::EgressHook, error::errno, load_program};

/// A feature that some supported kernels lack. It belongs to a program of which the object holds
/// two variants: one that uses the feature, and one that does without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// XDP programs that take frames of several buffers, so that a large MTU leaves XDP in the
    /// driver (Linux 5.18, commit f45d5b6ce2e8).
    XdpFragments,
    /// Socket lookup programs see the interface (Linux 5.17, commit f89315650ba3). Without it the
    /// last gate judges once more what an early gate has passed.
    LookupInterface,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::XdpFragments, Self::LookupInterface];

    /// Its name in status and reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::XdpFragments => "xdp.frags",
            Self::LookupInterface => "sk_lookup interface",
        }
    }

    /// What the guard does without it, for people.
    #[must_use]
    pub const fn without(self) -> &'static str {
        match self {
            Self::XdpFragments => "no XDP in the driver where the MTU is large; TC there",
            Self::LookupInterface => "monitor mode does not count what reaches the last gate only",
        }
    }

    /// The program by the name that everything else calls it: the variant that does without.
    const fn plain(self) -> &'static str {
        match self {
            Self::XdpFragments => "guard_ingress",
            Self::LookupInterface => "guard_lookup",
        }
    }

    /// The variant that uses the feature.
    const fn better(self) -> &'static str {
        match self {
            Self::XdpFragments => "guard_ingress_frags",
            Self::LookupInterface => "guard_lookup_interface",
        }
    }
}

/// The features that the loaded programs use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features(Vec<Feature>);

impl Features {
    /// Loads every program, and of two variants the one that this kernel takes.
    pub(super) fn load(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let mut used = Vec::new();
        for feature in Feature::ALL {
            let better = ebpf
                .program_mut(feature.better())
                .ok_or_else(|| KernelError::Missing(feature.better().to_owned()))?;
            match load_program(better) {
                Ok(()) => used.push(feature),
                Err(error) => log::debug!("no {}: {error}", feature.label()),
            }
        }
        let features = Self(used);
        for (name, program) in ebpf.programs_mut() {
            if features.wants(name) {
                load_program(program).map_err(|source| KernelError::Program {
                    name: name.to_owned(),
                    source: Box::new(source),
                })?;
            }
        }
        Ok(features)
    }

    /// Whether the feature is there and used.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.0.contains(&feature)
    }

    /// The features that this kernel lacks.
    pub fn missing(&self) -> impl Iterator<Item = Feature> {
        Feature::ALL
            .into_iter()
            .filter(|feature| !self.has(*feature))
    }

    /// The name of the variant that is loaded for this program.
    pub(super) fn variant<'a>(&self, program: &'a str) -> &'a str {
        self.0
            .iter()
            .find(|feature| feature.plain() == program)
            .map_or(program, |feature| feature.better())
    }

    /// Whether the program of this name is still to be loaded.
    fn wants(&self, name: &str) -> bool {
        // A better variant was loaded already, or refused.
        !Feature::ALL.iter().any(|feature| {
            name == feature.better() || (name == feature.plain() && self.has(*feature))
        })
    }
}

/// How TC programs can be attached to this interface: the kernel is asked for its tcx programs,
/// which it answers since Linux 6.6 (commit e420bed02507). Where there are some, aya looks at each:
/// that needs `CAP_SYS_ADMIN`, which the unit does not have (`EPERM`), and a program may be gone by
/// then (`ENOENT`).
pub(super) fn tc_hook(interface: &str) -> EgressHook {
    match SchedClassifier::query_tcx(interface, TcAttachType::Ingress) {
        Err(error) if !matches!(errno(&error), Some(libc::EPERM | libc::ENOENT)) => {
            EgressHook::Clsact
        }
        _ => EgressHook::Tcx,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_variants_one_is_loaded() {
        let none = Features::default();
        assert!(none.wants("guard_ingress") && !none.wants("guard_ingress_frags"));
        assert_eq!(none.variant("guard_ingress"), "guard_ingress");
        let one = Features(vec![Feature::XdpFragments]);
        assert!(!one.wants("guard_ingress") && !one.wants("guard_ingress_frags"));
        assert!(one.wants("guard_lookup") && one.wants("watch_ingress"));
        assert_eq!(one.variant("guard_ingress"), "guard_ingress_frags");
        assert_eq!(one.variant("guard_lookup"), "guard_lookup");
    }
}
