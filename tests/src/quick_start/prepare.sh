# A machine on which vsftpd, ProFTPD and Pure-FTPd serve one file, each at a port of its own, and
# ftpguard was never installed. $1: the folder with the files.
ftpds="$1/ftpds"
cp "$ftpds/usr/sbin/proftpd" "$ftpds/usr/sbin/pure-ftpd" usr/sbin/
cp -R "$ftpds/usr/lib/proftpd" usr/lib/
cp "$ftpds/lib/systemd/system/proftpd.service" usr/lib/systemd/system/
mkdir -p etc/proftpd srv/ftp
cp "$1/data.bin" srv/ftp/
chmod 755 srv/ftp
chmod 644 srv/ftp/data.bin
# Pure-FTPd serves anonymous clients what is this user's.
sed -i 's,^\(ftp:.*\):[^:]*:[^:]*$,\1:/srv/ftp:/bin/sh,' etc/passwd

cat > etc/vsftpd.conf << 'END'
listen=NO
listen_ipv6=YES
anonymous_enable=YES
local_enable=NO
pasv_min_port=50000
pasv_max_port=50099
END

cat > etc/proftpd/proftpd.conf << 'END'
ServerName "files"
ServerType standalone
DefaultServer on
Port 2121
User nobody
Group nogroup
PassivePorts 51000 51099
RequireValidShell off
UseReverseDNS off
<Anonymous /srv/ftp>
  User ftp
  Group nogroup
  UserAlias anonymous ftp
</Anonymous>
END

# As Debian's wrapper does: one file for each directive, which become options.
mkdir -p etc/pure-ftpd/conf
echo 2122 > etc/pure-ftpd/conf/Bind
echo 52000 52099 > etc/pure-ftpd/conf/PassivePortRange
cat > usr/lib/systemd/system/pure-ftpd.service << 'END'
[Service]
ExecStart=/usr/sbin/pure-ftpd --anonymousonly --bind=2122 --passiveportrange=52000:52099
END

# What a former installation on this machine has left.
rm -rf usr/bin/ftpguard etc/ftpguard usr/lib/systemd/system/ftpguard.service
# The page's commands are answered with yes.
echo 'APT::Get::Assume-Yes "true";' > etc/apt/apt.conf.d/90yes
