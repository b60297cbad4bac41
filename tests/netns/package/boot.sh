# Becomes the first process of a machine whose root is the folder $1: systemd, in namespaces of its own.
# The number that outsiders know it by goes to the file $2.
set -eu
root=$1
read -r pid rest < /proc/self/stat
echo "$pid" > "$2"
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
# What is set there is the host's as well.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t bpf -o mode=0700 bpf "$root/sys/fs/bpf"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for device in full null random tty urandom zero; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
# systemd mounts what it leads to, and misses it where a service asks for devices of its own.
ln -s pts/ptmx "$root/dev/ptmx"
cd "$root"
mkdir .outside
pivot_root . .outside
umount -l /.outside
rmdir /.outside
# Without a variable `container`, systemd would look for hardware.
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
