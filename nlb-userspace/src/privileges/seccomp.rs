//! The filter of system calls: what the daemon makes, what the programs make that it runs, and
//! nothing else.
//!
//! A filter is inherited by whatever is executed, and health checks may execute a command; so the
//! list has what ordinary programs do with files, memory, processes and sockets, and leaves out what
//! acts on the machine: modules, mounts, namespaces, clocks, other processes' memory, keyrings,
//! swap, reboot, `io_uring`, user-space page faults. Loading BPF programs ends with the start.
//!
//! A call that is not listed fails with `EPERM`, and the daemon goes on: whatever wanted it reports
//! that error, and nobody is killed for a line that is missing here. `node.seccomp = "log"` lets the
//! call through and has the kernel log it, which is how such a line is found.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::PrivilegesError;
use crate::config::Seccomp;

/// `BPF_PROG_LOAD` of `enum bpf_cmd` in `linux/bpf.h`.
const BPF_PROG_LOAD: u64 = 5;

/// Lets this thread, and every one that it starts, make these calls only.
pub(super) fn apply(policy: Seccomp) -> Result<(), PrivilegesError> {
    let otherwise = match policy {
        Seccomp::Log => SeccompAction::Log,
        Seccomp::Enforce | Seccomp::Off => SeccompAction::Errno(libc::EPERM.unsigned_abs()),
    };
    let program = filter(otherwise)?;
    seccompiler::apply_filter_all_threads(&program)?;
    tracing::info!(
        system_calls = ALLOWED.len() + 1,
        others = if policy == Seccomp::Log {
            "logged by the kernel"
        } else {
            "refused"
        },
        "system calls are filtered"
    );
    Ok(())
}

fn filter(otherwise: SeccompAction) -> Result<BpfProgram, PrivilegesError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let not_a_load =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, BPF_PROG_LOAD)?;
    rules.insert(libc::SYS_bpf, vec![SeccompRule::new(vec![not_a_load])?]);
    let filter = SeccompFilter::new(
        rules,
        otherwise,
        SeccompAction::Allow,
        // Sharing records with the kernel as we do takes this processor.
        TargetArch::x86_64,
    )?;
    Ok(filter.try_into()?)
}

/// What may be called, besides `bpf`, by what it is for.
#[rustfmt::skip]
const ALLOWED: &[i64] = &[
    // Files: the configuration, the journal, logs, pins.
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev,
    libc::SYS_pread64, libc::SYS_pwrite64, libc::SYS_preadv, libc::SYS_pwritev,
    libc::SYS_preadv2, libc::SYS_pwritev2, libc::SYS_lseek, libc::SYS_sendfile,
    libc::SYS_copy_file_range, libc::SYS_splice, libc::SYS_tee,
    libc::SYS_open, libc::SYS_openat, libc::SYS_openat2, libc::SYS_creat, libc::SYS_close,
    libc::SYS_close_range, libc::SYS_dup, libc::SYS_dup2, libc::SYS_dup3, libc::SYS_fcntl,
    libc::SYS_flock, libc::SYS_ioctl, libc::SYS_fsync, libc::SYS_fdatasync,
    libc::SYS_sync_file_range, libc::SYS_truncate, libc::SYS_ftruncate, libc::SYS_fallocate,
    libc::SYS_fadvise64, libc::SYS_stat, libc::SYS_fstat, libc::SYS_lstat, libc::SYS_newfstatat,
    libc::SYS_statx, libc::SYS_statfs, libc::SYS_fstatfs, libc::SYS_access, libc::SYS_faccessat,
    libc::SYS_faccessat2, libc::SYS_getdents, libc::SYS_getdents64, libc::SYS_getcwd,
    libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_mkdir, libc::SYS_mkdirat, libc::SYS_rmdir,
    libc::SYS_unlink, libc::SYS_unlinkat, libc::SYS_rename, libc::SYS_renameat,
    libc::SYS_renameat2, libc::SYS_link, libc::SYS_linkat, libc::SYS_symlink,
    libc::SYS_symlinkat, libc::SYS_readlink, libc::SYS_readlinkat, libc::SYS_chmod,
    libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_umask, libc::SYS_utimensat,
    libc::SYS_getxattr, libc::SYS_lgetxattr, libc::SYS_fgetxattr, libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch,
    // Memory.
    libc::SYS_brk, libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect, libc::SYS_mremap,
    libc::SYS_madvise, libc::SYS_msync, libc::SYS_mincore, libc::SYS_membarrier,
    libc::SYS_memfd_create,
    // Waiting, and time.
    libc::SYS_poll, libc::SYS_ppoll, libc::SYS_select, libc::SYS_pselect6,
    libc::SYS_epoll_create, libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_eventfd, libc::SYS_eventfd2,
    libc::SYS_timerfd_create, libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime,
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep, libc::SYS_gettimeofday, libc::SYS_time, libc::SYS_alarm,
    libc::SYS_setitimer, libc::SYS_getitimer, libc::SYS_futex, libc::SYS_futex_waitv,
    // Sockets: control socket, probes, netlink.
    libc::SYS_socket, libc::SYS_socketpair, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept,
    libc::SYS_accept4, libc::SYS_connect, libc::SYS_shutdown, libc::SYS_getsockname,
    libc::SYS_getpeername, libc::SYS_getsockopt, libc::SYS_setsockopt, libc::SYS_sendto,
    libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    // Threads and processes: our own, and commands that check health.
    libc::SYS_clone, libc::SYS_clone3, libc::SYS_fork, libc::SYS_vfork, libc::SYS_execve,
    libc::SYS_execveat, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_wait4, libc::SYS_waitid,
    libc::SYS_pipe, libc::SYS_pipe2, libc::SYS_kill, libc::SYS_tgkill, libc::SYS_tkill,
    libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal, libc::SYS_set_tid_address,
    libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_rseq, libc::SYS_arch_prctl,
    libc::SYS_prctl, libc::SYS_sched_yield, libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity, libc::SYS_sched_getparam, libc::SYS_sched_getscheduler,
    libc::SYS_getpriority, libc::SYS_setpgid, libc::SYS_getpgid, libc::SYS_getpgrp,
    libc::SYS_setsid, libc::SYS_getsid, libc::SYS_getrlimit, libc::SYS_setrlimit,
    libc::SYS_prlimit64, libc::SYS_getrusage, libc::SYS_times, libc::SYS_sysinfo,
    libc::SYS_uname, libc::SYS_getcpu, libc::SYS_getrandom, libc::SYS_restart_syscall,
    libc::SYS_getpid, libc::SYS_getppid, libc::SYS_gettid, libc::SYS_getuid, libc::SYS_geteuid,
    libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getgroups, libc::SYS_getresuid,
    libc::SYS_getresgid, libc::SYS_capget,
    // Signals.
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending, libc::SYS_rt_sigtimedwait, libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigqueueinfo, libc::SYS_sigaltstack, libc::SYS_signalfd4, libc::SYS_pause,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_not_listed_fails_and_the_thread_lives_on() {
        // On a thread of its own, whose filter ends with it.
        let (listed, refused) = std::thread::spawn(|| {
            let program = filter(SeccompAction::Errno(libc::EPERM.unsigned_abs())).unwrap();
            rustix::thread::set_no_new_privs(true).unwrap();
            seccompiler::apply_filter(&program).unwrap();
            let root = rustix::fs::open("/", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
            (root.is_ok(), rustix::process::chroot("/").unwrap_err())
        })
        .join()
        .unwrap();
        assert!(listed);
        assert_eq!(refused, rustix::io::Errno::PERM);
        if rustix::process::geteuid().is_root() {
            rustix::process::chroot("/").expect("root may, without the filter");
        }
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut calls = ALLOWED.to_vec();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), ALLOWED.len());
        assert!(!calls.contains(&libc::SYS_bpf), "it has a rule of its own");
    }
}
