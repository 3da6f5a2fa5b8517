//! Process 1: mounts, modules, the checks, the end.

use std::{
    ffi::CString,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use ftpguard_tests::guard::BINARY;
use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

/// Where the image has the kernel modules, in the order in which they are to be loaded.
const MODULES: &str = "/modules";

/// File systems to mount: type and place.
const MOUNTS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Makes the machine usable, runs the checks, and powers it off, whatever happened.
pub(crate) fn start() -> Result<()> {
    if let Err(error) = prepare().and_then(|()| run_checks()) {
        println!("{error:?}");
    }
    reboot(RebootMode::RB_POWER_OFF).context("powering off")?;
    Ok(())
}

fn prepare() -> Result<()> {
    for (kind, place) in MOUNTS {
        fs::create_dir_all(place).with_context(|| format!("making {place}"))?;
        mount(
            Some(kind),
            place,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("mounting {kind} at {place}"))?;
    }
    let mut modules: Vec<_> = fs::read_dir(MODULES)
        .context("listing the modules")?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    modules.sort();
    for module in modules {
        insert(&module).with_context(|| format!("loading {}", module.display()))?;
    }
    // As on every host.
    let mut up = Command::new("/bin/ip");
    let status = up.args(["link", "set", "lo", "up"]).status();
    ensure!(
        status.context("starting ip")?.success(),
        "lo does not come up"
    );
    Ok(())
}

fn insert(module: &Path) -> Result<()> {
    let file = File::open(module)?;
    match finit_module(&file, &CString::default(), ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Runs the checks in a child, and reaps every process that loses its parent meanwhile.
fn run_checks() -> Result<()> {
    let child = Command::new("/proc/self/exe")
        .arg("all")
        // The kernel gives process 1 no PATH.
        .env("PATH", "/bin")
        .env(BINARY, "/bin/ftpguard")
        .stdin(Stdio::null())
        .spawn()
        .context("starting the checks")?;
    let child = Pid::from_raw(child.id().cast_signed());
    loop {
        let ended = waitpid(None, Some(WaitPidFlag::__WALL)).context("waiting")?;
        if ended.pid() == Some(child) {
            return Ok(());
        }
    }
}
