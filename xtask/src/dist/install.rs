//! Installs, upgrades, removes and purges the .deb with the real dpkg, in a root of its own: an
//! overlay over this machine's that goes with its mount namespace.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::exec::{as_root, run};

/// Everything the overlay's root is made of; then the trial. $1: the older package, $2: the newer.
///
/// The upper folder shows at the end what is left: the package manager's own records, and nothing
/// of ours.
const TRIAL: &str = r#"
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
cp "$1" /mnt/older.deb
cp "$2" /mnt/newer.deb
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
mkdir -p /mnt/root/packages
mv /mnt/older.deb /mnt/newer.deb /mnt/root/packages
mount -t proc proc /mnt/root/proc
mount -t tmpfs tmpfs /mnt/root/run
mount -t tmpfs tmpfs /mnt/root/tmp
# A package that is installed on the machine itself would spoil the trial.
if [ -e /mnt/root/usr/bin/ftpguard ]; then
    chroot /mnt/root dpkg --purge ftpguard
fi
chroot /mnt/root sh -eux << 'END'
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
config=/etc/ftpguard/ftpguard.toml
unit=ftpguard.service

dpkg --install /packages/older.deb
test "$(dpkg-query --show --showformat '${Version}' ftpguard)" = 0.0.1-1
ftpguard --version
ftpguard check --config "$config"
test -s /usr/share/man/man8/ftpguard.8.gz
test -s /usr/share/man/man8/ftpguard-run.8.gz
zgrep -q 'EXIT STATUS' /usr/share/man/man8/ftpguard-run.8.gz
test -s /usr/share/bash-completion/completions/ftpguard
test -s /usr/share/doc/ftpguard/copyright
bash -n /usr/share/bash-completion/completions/ftpguard
systemd-analyze verify "$unit"
# Whoever installs it decides when it starts.
if systemctl is-enabled --quiet "$unit"; then
    exit 1
fi
systemctl enable "$unit"

# What the administrator wrote, and enabled, outlives an upgrade.
echo '# mine' >> "$config"
dpkg --install /packages/newer.deb
test "$(dpkg-query --show --showformat '${Version}' ftpguard)" != 0.0.1-1
grep -q '^# mine' "$config"
systemctl is-enabled --quiet "$unit"
ftpguard check --config "$config"

# Removed: the program goes, the configuration stays.
dpkg --remove ftpguard
test ! -e /usr/bin/ftpguard
grep -q '^# mine' "$config"
dpkg --install /packages/newer.deb
grep -q '^# mine' "$config"

dpkg --purge ftpguard
test ! -e /etc/ftpguard
if dpkg-query --show ftpguard 2> /dev/null; then
    exit 1
fi
END
rm -r /mnt/root/packages
# The manual's reader keeps pages that it has shown.
left=$(cd /mnt/upper && find . -path ./var/cache/man -prune -o -name '*ftpguard*' ! -type c -print)
if [ -n "$left" ]; then
    echo "left behind after purge: $left" >&2
    exit 1
fi
"#;

/// Tries the newer package as an upgrade of the older one. Needs root.
pub(super) fn try_deb(older: &Path, newer: &Path) -> Result<()> {
    let mut command = as_root("unshare", &[]);
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--ipc"]);
    command.args(["sh", "-c", TRIAL, "trial"]);
    run(command.arg(older).arg(newer)).context("the .deb, installed, upgraded and purged")?;
    println!("dist: the .deb was installed, upgraded, removed and purged; nothing is left of it");
    Ok(())
}
