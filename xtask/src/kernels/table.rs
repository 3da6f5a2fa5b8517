//! The kernels on which ftpguard is proved, oldest first.

use ftpguard_tests::vm::Feature;

/// One kernel of the matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Its name, for `--only` and in tables.
    pub(crate) name: &'static str,
    /// The Debian suite that has it.
    pub(crate) suite: &'static str,
    /// The packages that it comes in. Versions come and go: the newest of each is taken.
    pub(crate) packages: &'static [Pattern],
    /// What it lacks. Anything else that is missing, or is there after all, is a failure.
    pub(crate) degraded: &'static [Feature],
}

/// The names of a package's versions: how they begin and end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern(pub(crate) &'static str, pub(crate) &'static str);

/// All of them.
pub(crate) const KERNELS: [Entry; 5] = [
    Entry {
        name: "5.10",
        suite: "bullseye",
        packages: &[Pattern("linux-image-5.10.", "-cloud-amd64-unsigned")],
        degraded: &[
            Feature::Tcx,
            Feature::InstructionCount,
            Feature::XdpFragments,
            Feature::LookupInterface,
        ],
    },
    Entry {
        name: "6.1",
        suite: "bookworm",
        packages: &[Pattern("linux-image-6.1.", "-cloud-amd64-unsigned")],
        degraded: &[Feature::Tcx],
    },
    Entry {
        name: "6.12",
        suite: "trixie",
        packages: &[Pattern("linux-image-6.12.", "-cloud-amd64-unsigned")],
        degraded: &[],
    },
    Entry {
        name: "6.18",
        suite: "trixie-backports",
        packages: &[Pattern("linux-image-6.18.", "-cloud-amd64")],
        degraded: &[],
    },
    Entry {
        name: "7.2",
        suite: "sid",
        packages: &[
            Pattern("linux-binary-7.2.", "-cloud-amd64"),
            Pattern("linux-modules-7.2.", "-cloud-amd64"),
        ],
        degraded: &[],
    },
];
