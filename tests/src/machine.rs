//! A machine of its own: everything that is installed on this one, with files of its own over it.

/// Makes the machine's root, and becomes its service manager. $1: the folder with units and
/// files, which appears as /mnt. $2: systemd. $3: a script that makes it what it should be,
/// which is started in the new root before that is entered, with the folder as its argument.
///
/// What is written there stays in memory and goes with the mount namespace. What the packages of
/// this machine start by themselves is not started.
pub(crate) const BOOT: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
cp -R "$1" /mnt/files
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cd /mnt/root
mount --rbind /dev dev
mount --rbind /sys sys
umount --recursive --lazy sys/fs/cgroup
mount -t cgroup2 none sys/fs/cgroup
while mountpoint --quiet sys/fs/bpf; do umount --lazy sys/fs/bpf; done
mount -t bpf bpf sys/fs/bpf
mount -t proc proc proc
for folder in run tmp var/log var/tmp; do
    mount -t tmpfs -o mode=755 tmpfs "$folder"
done
chmod 1777 tmp var/tmp
rm -rf etc/systemd/system
cp -R /mnt/files/units etc/systemd/system
sh -e -c "$3" prepare /mnt/files
mount --bind /mnt/files mnt
mkdir -p mnt/former
systemd="$2"
pivot_root . mnt/former
umount --lazy /mnt/former
rmdir /mnt/former
export container=ftpguard-sandbox PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec "$systemd" --system --unit=sandbox.target --log-target=console --log-level=info --show-status=no
"#;
