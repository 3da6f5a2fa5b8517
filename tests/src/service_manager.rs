//! A service manager of its own: systemd as process 1 of new namespaces, on a host of the
//! sandbox.
//!
//! It sees the machine's files read-only, its own /run, its own part of the cgroup tree, its own
//! BPF file system and none of the machine's processes. What it started ends with it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cgroup::Cgroup,
    machine,
    process::{Finished, Process},
    sandbox::Sandbox,
};

/// Where systemd lies: with /usr merged, and before.
const SYSTEMD: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
/// What it starts.
const TARGET: &str = "sandbox.target";
/// How long one command may take.
const SHORT: Duration = Duration::from_secs(20);
/// How long a unit may take until it is as expected.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes the file system that systemd sees, and becomes systemd. $1: the folder with units and
/// programs, which appears as /mnt. $2: systemd.
const BOOT: &str = r#"
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /mnt
cp -R "$1/." /mnt
mount -t tmpfs -o mode=755 tmpfs /run
umount --recursive --lazy /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
# systemd gives the unit what it may write by path: with two mounts at one path, the lower one.
while mountpoint --quiet /sys/fs/bpf; do umount --lazy /sys/fs/bpf; done
mount -t bpf bpf /sys/fs/bpf
for folder in /etc/systemd/system /var/log /var/tmp /tmp; do
    mount -t tmpfs tmpfs "$folder"
done
cp -R /mnt/units/. /etc/systemd/system
mount -o remount,bind,ro /
export container=ftpguard-sandbox PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec "$2" --system --unit=sandbox.target --log-target=console --log-level=info --show-status=no
"#;

/// A running systemd. It is killed, with everything it started, when this value is dropped.
#[derive(Debug)]
pub struct ServiceManager {
    process: Process,
    id: u32,
    _cgroup: Cgroup,
}

impl ServiceManager {
    /// Starts systemd on the sandbox's server with these units, by their paths below
    /// /etc/systemd/system, and files, by their names below /mnt. It starts the journal and the
    /// unit named `wanted`.
    pub fn boot(
        sandbox: &Sandbox,
        units: &[(&str, &str)],
        files: &[(&str, &Path)],
        wanted: &str,
    ) -> Result<Self> {
        Self::start(sandbox, units, files, wanted, &[BOOT, "boot"], &[])
    }

    /// Starts systemd on the sandbox's server as [`ServiceManager::boot`] does, with a root of its
    /// own in which everything can be written. `prepare` is a shell script that is started in the
    /// new root before that is entered; the files lie in its first argument.
    pub fn boot_machine(
        sandbox: &Sandbox,
        units: &[(&str, &str)],
        files: &[(&str, &Path)],
        wanted: &str,
        prepare: &str,
    ) -> Result<Self> {
        Self::start(
            sandbox,
            units,
            files,
            wanted,
            &[machine::BOOT, "boot"],
            &[prepare],
        )
    }

    fn start(
        sandbox: &Sandbox,
        units: &[(&str, &str)],
        files: &[(&str, &Path)],
        wanted: &str,
        script: &[&str],
        more: &[&str],
    ) -> Result<Self> {
        let systemd = SYSTEMD
            .into_iter()
            .find(|path| Path::new(path).exists())
            .context("systemd is not installed (cargo xtask setup installs it)")?;
        let folder = crate::guard::folder(sandbox, "manager")?;
        let target = format!(
            "[Unit]\nWants=systemd-journald.service {wanted}\nAfter=systemd-journald.service\n"
        );
        for (name, text) in units.iter().chain(&[(TARGET, target.as_str())]) {
            let path = folder.join("units").join(name);
            make_parent(&path)?;
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        for (name, source) in files {
            let path = folder.join(name);
            make_parent(&path)?;
            fs::copy(source, &path)
                .with_context(|| format!("copying {} to {}", source.display(), path.display()))?;
        }
        let cgroup = sandbox.ftpd_cgroup().child("manager")?;
        let mut command = cgroup.command("unshare");
        command.args(["--mount", "--pid", "--fork", "--cgroup", "--ipc", "--uts"]);
        command.args(["--kill-child", "sh", "-c"]).args(script);
        command.arg(&folder).arg(systemd).args(more);
        let process = sandbox.server().spawn(&mut command)?;
        let mut manager = Self {
            id: 0,
            process,
            _cgroup: cgroup,
        };
        manager.id = manager.wait_for_systemd()?;
        Ok(manager)
    }

    /// Runs a command as a process of the manager's namespaces, whatever its exit status.
    pub fn run(&self, arguments: &[&str]) -> Result<Finished> {
        let words = self.inside(arguments);
        let mut command = Command::new(&words[0]);
        Process::spawn(command.args(&words[1..]))?.wait(SHORT)
    }

    /// Program and arguments that run a command as a process of the manager's namespaces.
    #[must_use]
    pub fn inside(&self, arguments: &[&str]) -> Vec<String> {
        let target = self.id.to_string();
        ["nsenter", "--target", &target, "--mount", "--pid"]
            .iter()
            .chain(&["--net", "--cgroup", "--ipc", "--uts", "--"])
            .chain(arguments)
            .map(ToString::to_string)
            .collect()
    }

    /// A property of a unit, as `systemctl show` knows it.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let shown = self
            .run(&["systemctl", "show", "--value", "--property", name, unit])?
            .success("systemctl show")?;
        Ok(shown.stdout.trim().to_owned())
    }

    /// Waits until a unit is active, and returns its main process's id in the namespaces.
    pub fn wait_until_active(&self, unit: &str) -> Result<String> {
        self.wait_for("an active unit", || {
            // systemctl finds nobody to ask until systemd has come up.
            let active = self.property(unit, "ActiveState").ok()? == "active";
            active
                .then(|| self.property(unit, "MainPID").ok())
                .flatten()
        })
    }

    /// Asks until there is an answer; fails with the log after half a minute.
    pub fn wait_for<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask() {
                return Ok(answer);
            }
            if Instant::now() > deadline {
                bail!("no {what} within {PATIENCE:?}\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// What systemd and the units told.
    #[must_use]
    pub fn log(&self) -> String {
        let journal = self.run(&["journalctl", "--no-pager", "--quiet"]);
        let journal = journal.map(|told| told.stdout).unwrap_or_default();
        format!("{}\n{journal}", self.process.log())
    }

    fn wait_for_systemd(&mut self) -> Result<u32> {
        let parent = self.process.id();
        let children = PathBuf::from(format!("/proc/{parent}/task/{parent}/children"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let child = fs::read_to_string(&children).unwrap_or_default();
            if let Some(child) = child.split_whitespace().next()
                && fs::read_to_string(format!("/proc/{child}/comm"))
                    .is_ok_and(|name| name.trim() == "systemd")
            {
                return child.parse().context("a process id");
            }
            if self.process.ended()?.is_some() || Instant::now() > deadline {
                bail!("systemd does not start:\n{}", self.process.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))
}
