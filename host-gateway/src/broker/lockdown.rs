//! What the broker and every program that it starts can ask of the kernel: a list of what
//! is needed, and nothing else (seccomp(2)). Refuses network sockets of any family but unix
//! and netlink, namespaces, mounts, tracing, modules, keys, BPF, io_uring and devices. The
//! filter can't be taken off, and children inherit it.
//!
//! What is not listed answers ENOSYS, as an older kernel would, so that programs fall back;
//! what is refused for what it could do answers EPERM.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Where,
    SeccompFilter, SeccompRule, apply_filter,
};

#[derive(Debug, thiserror::Error)]
pub enum LockdownError {
    #[error("the system call filter can't be built for this machine")]
    Build(#[from] BackendError),
    #[error("the system call filter can't be applied")]
    Apply(#[from] seccompiler::Error),
}

/// Namespaces that clone(2) could make.
const NEW_NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// The only protocols of netlink: addresses, the audit system (useradd reports to it), and
/// the generic one that WireGuard is configured by.
const NETLINK: [libc::c_int; 3] = [libc::NETLINK_ROUTE, libc::NETLINK_AUDIT, libc::NETLINK_GENERIC];

/// Files, memory, processes, signals, time: what ordinary programs live on.
#[rustfmt::skip]
const PLAIN: &[libc::c_long] = &[
    libc::SYS_brk, libc::SYS_capget, libc::SYS_capset, libc::SYS_chdir, libc::SYS_clock_getres,
    libc::SYS_clock_gettime, libc::SYS_clock_nanosleep, libc::SYS_close, libc::SYS_close_range,
    libc::SYS_copy_file_range, libc::SYS_dup, libc::SYS_dup3, libc::SYS_epoll_create1, libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_eventfd2, libc::SYS_execve, libc::SYS_execveat,
    libc::SYS_exit, libc::SYS_exit_group, libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_fadvise64,
    libc::SYS_fallocate, libc::SYS_fchdir, libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchown,
    libc::SYS_fchownat, libc::SYS_fcntl, libc::SYS_fdatasync, libc::SYS_fgetxattr, libc::SYS_flistxattr,
    libc::SYS_flock, libc::SYS_fremovexattr, libc::SYS_fsetxattr, libc::SYS_fstat, libc::SYS_fstatfs,
    libc::SYS_fsync, libc::SYS_ftruncate, libc::SYS_futex, libc::SYS_get_robust_list, libc::SYS_getcpu,
    libc::SYS_getcwd, libc::SYS_getdents64, libc::SYS_getegid, libc::SYS_geteuid, libc::SYS_getgid,
    libc::SYS_getgroups, libc::SYS_getitimer, libc::SYS_getpgid, libc::SYS_getpid, libc::SYS_getppid,
    libc::SYS_getpriority, libc::SYS_getrandom, libc::SYS_getresgid, libc::SYS_getresuid, libc::SYS_getrlimit,
    libc::SYS_getrusage, libc::SYS_getsid, libc::SYS_gettid, libc::SYS_gettimeofday, libc::SYS_getuid,
    libc::SYS_getxattr, libc::SYS_inotify_add_watch, libc::SYS_inotify_init1, libc::SYS_inotify_rm_watch,
    libc::SYS_kill, libc::SYS_lgetxattr, libc::SYS_linkat, libc::SYS_listxattr, libc::SYS_llistxattr,
    libc::SYS_lremovexattr, libc::SYS_lseek, libc::SYS_lsetxattr, libc::SYS_madvise, libc::SYS_membarrier,
    libc::SYS_memfd_create, libc::SYS_mincore, libc::SYS_mkdirat, libc::SYS_mlock, libc::SYS_mmap,
    libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_msync, libc::SYS_munlock, libc::SYS_munmap, libc::SYS_nanosleep,
    libc::SYS_newfstatat, libc::SYS_openat, libc::SYS_openat2, libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal,
    libc::SYS_pipe2, libc::SYS_ppoll, libc::SYS_prctl, libc::SYS_pread64, libc::SYS_preadv, libc::SYS_preadv2,
    libc::SYS_prlimit64, libc::SYS_pselect6, libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_pwritev2,
    libc::SYS_read, libc::SYS_readahead, libc::SYS_readlinkat, libc::SYS_readv, libc::SYS_removexattr,
    libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_restart_syscall, libc::SYS_rseq, libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend, libc::SYS_rt_sigtimedwait, libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min, libc::SYS_sched_getaffinity,
    libc::SYS_sched_getattr, libc::SYS_sched_getparam, libc::SYS_sched_getscheduler, libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield, libc::SYS_seccomp, libc::SYS_sendfile, libc::SYS_set_robust_list,
    libc::SYS_set_tid_address, libc::SYS_setfsgid, libc::SYS_setfsuid, libc::SYS_setgid, libc::SYS_setgroups,
    libc::SYS_setitimer, libc::SYS_setpgid, libc::SYS_setpriority, libc::SYS_setregid, libc::SYS_setresgid,
    libc::SYS_setresuid, libc::SYS_setreuid, libc::SYS_setrlimit, libc::SYS_setsid, libc::SYS_setuid,
    libc::SYS_setxattr, libc::SYS_sigaltstack, libc::SYS_signalfd4, libc::SYS_splice, libc::SYS_statfs,
    libc::SYS_statx, libc::SYS_symlinkat, libc::SYS_sync, libc::SYS_sync_file_range, libc::SYS_syncfs,
    libc::SYS_sysinfo, libc::SYS_tee, libc::SYS_tgkill, libc::SYS_timer_create, libc::SYS_timer_delete,
    libc::SYS_timer_getoverrun, libc::SYS_timer_gettime, libc::SYS_timer_settime, libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime, libc::SYS_timerfd_settime, libc::SYS_times, libc::SYS_tkill, libc::SYS_truncate,
    libc::SYS_umask, libc::SYS_uname, libc::SYS_unlinkat, libc::SYS_utimensat, libc::SYS_vmsplice, libc::SYS_wait4,
    libc::SYS_waitid, libc::SYS_write, libc::SYS_writev,
    // On the sockets that `socket` lets be made.
    libc::SYS_accept, libc::SYS_accept4, libc::SYS_bind, libc::SYS_connect, libc::SYS_getpeername,
    libc::SYS_getsockname, libc::SYS_getsockopt, libc::SYS_listen, libc::SYS_recvfrom, libc::SYS_recvmmsg,
    libc::SYS_recvmsg, libc::SYS_sendmmsg, libc::SYS_sendmsg, libc::SYS_sendto, libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// The older names of the same.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLDER: &[libc::c_long] = &[
    libc::SYS_access, libc::SYS_alarm, libc::SYS_arch_prctl, libc::SYS_chmod, libc::SYS_chown, libc::SYS_creat,
    libc::SYS_dup2, libc::SYS_epoll_create, libc::SYS_epoll_wait, libc::SYS_eventfd, libc::SYS_fork,
    libc::SYS_getdents, libc::SYS_getpgrp, libc::SYS_inotify_init, libc::SYS_lchown, libc::SYS_link,
    libc::SYS_lstat, libc::SYS_mkdir, libc::SYS_open, libc::SYS_pause, libc::SYS_pipe, libc::SYS_poll,
    libc::SYS_readlink, libc::SYS_rename, libc::SYS_rmdir, libc::SYS_select, libc::SYS_signalfd, libc::SYS_stat,
    libc::SYS_symlink, libc::SYS_time, libc::SYS_unlink, libc::SYS_utime, libc::SYS_utimes, libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// What could undo all of this, or the host.
#[rustfmt::skip]
const DANGEROUS: &[libc::c_long] = &[
    libc::SYS_acct, libc::SYS_add_key, libc::SYS_adjtimex, libc::SYS_bpf, libc::SYS_chroot, libc::SYS_clock_adjtime,
    libc::SYS_clock_settime, libc::SYS_delete_module, libc::SYS_fanotify_init, libc::SYS_finit_module,
    libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fsopen, libc::SYS_fspick, libc::SYS_init_module,
    libc::SYS_io_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_io_uring_setup,
    libc::SYS_kcmp, libc::SYS_kexec_file_load, libc::SYS_kexec_load, libc::SYS_keyctl, libc::SYS_mount,
    libc::SYS_mount_setattr, libc::SYS_move_mount, libc::SYS_name_to_handle_at, libc::SYS_open_by_handle_at,
    libc::SYS_open_tree, libc::SYS_perf_event_open, libc::SYS_personality, libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_ptrace,
    libc::SYS_quotactl, libc::SYS_reboot, libc::SYS_request_key, libc::SYS_setdomainname, libc::SYS_sethostname,
    libc::SYS_setns, libc::SYS_settimeofday, libc::SYS_swapoff, libc::SYS_swapon, libc::SYS_syslog,
    libc::SYS_umount2, libc::SYS_unshare, libc::SYS_userfaultfd, libc::SYS_vhangup,
];

#[cfg(target_arch = "x86_64")]
const DANGEROUS_HERE: &[libc::c_long] = &[libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const DANGEROUS_HERE: &[libc::c_long] = &[];

/// Give away what is not listed: for this thread, all that it starts, and for good.
///
/// # Errors
/// Where the kernel has no seccomp.
pub fn apply() -> Result<(), LockdownError> {
    // The newer filter's answer counts where both refuse, and the older one lets it be
    // applied.
    for filter in [needed()?, dangerous()?] {
        apply_filter(&filter)?;
    }
    Ok(())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Whatever is not here is not there: ENOSYS.
fn needed() -> Result<BpfProgram, LockdownError> {
    let mut rules: Rules = PLAIN.iter().chain(OLDER).map(|call| (*call, Vec::new())).collect();
    // Looked at below. clone3(2) hides its flags in memory, so it is not listed: libraries
    // fall back to clone(2).
    for call in [libc::SYS_socket, libc::SYS_socketpair, libc::SYS_clone, libc::SYS_mknodat, libc::SYS_ioctl] {
        rules.insert(call, Vec::new());
    }
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_mknod, Vec::new());
    build(rules, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()), SeccompAction::Allow)
}

/// What is refused with EPERM: whole calls, and others by their arguments.
fn dangerous() -> Result<BpfProgram, LockdownError> {
    let mut rules: Rules = DANGEROUS.iter().chain(DANGEROUS_HERE).map(|call| (*call, Vec::new())).collect();
    let (unix, netlink) = (u64::from(libc::AF_UNIX.cast_unsigned()), u64::from(libc::AF_NETLINK.cast_unsigned()));
    let family = |op, value| Where::new(0, Len::Dword, op, value);
    let mut protocol = vec![family(Op::Eq, netlink)?];
    for known in NETLINK {
        protocol.push(Where::new(2, Len::Dword, Op::Ne, u64::from(known.cast_unsigned()))?);
    }
    let foreign = SeccompRule::new(vec![family(Op::Ne, unix)?, family(Op::Ne, netlink)?])?;
    rules.insert(libc::SYS_socket, vec![foreign.clone(), SeccompRule::new(protocol)?]);
    rules.insert(libc::SYS_socketpair, vec![foreign]);

    // Any of these bits: one rule each, since a mask compares all of its bits at once.
    let bits = (0..64).map(|bit| 1_u64 << bit).filter(|bit| NEW_NAMESPACES & bit != 0);
    let makes = bits.map(|bit| SeccompRule::new(vec![Where::new(0, Len::Qword, Op::MaskedEq(bit), bit)?]));
    rules.insert(libc::SYS_clone, makes.collect::<Result<_, _>>()?);

    // A device file would be the disk itself.
    let device = |argument: u8| {
        [libc::S_IFCHR, libc::S_IFBLK].map(|kind| {
            let mask = Op::MaskedEq(u64::from(libc::S_IFMT));
            SeccompRule::new(vec![Where::new(argument, Len::Dword, mask, u64::from(kind))?])
        })
    };
    rules.insert(libc::SYS_mknodat, device(2).into_iter().collect::<Result<_, _>>()?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_mknod, device(1).into_iter().collect::<Result<_, _>>()?);
    // Typing into a terminal that somebody else sits at.
    let typing =
        [libc::TIOCSTI, libc::TIOCLINUX].map(|call| SeccompRule::new(vec![Where::new(1, Len::Dword, Op::Eq, call)?]));
    rules.insert(libc::SYS_ioctl, typing.into_iter().collect::<Result<_, _>>()?);
    build(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM.cast_unsigned()))
}

fn build(rules: Rules, other: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, LockdownError> {
    let machine = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, other, listed, machine)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A filter is its thread's own, so that every test here has one for itself.
    fn locked<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(|| {
            apply().unwrap();
            work()
        });
        thread.join().unwrap()
    }

    fn run(program: &str, args: &[&str]) -> (bool, String) {
        let output = Command::new(program).args(args).env_clear().env("PATH", crate::process::PATH).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    #[test]
    fn what_is_not_needed_is_refused_here_and_in_children() {
        use rustix::net::{AddressFamily as Family, SocketFlags, SocketType, netlink, socket, socket_with};
        locked(|| {
            for family in [Family::INET, Family::INET6, Family::PACKET] {
                assert_eq!(socket(family, SocketType::DGRAM, None).unwrap_err(), rustix::io::Errno::PERM);
            }
            let net = |protocol| socket_with(Family::NETLINK, SocketType::RAW, SocketFlags::empty(), Some(protocol));
            assert!(net(netlink::AUDIT).is_ok() && net(netlink::GENERIC).is_ok());
            assert_eq!(net(netlink::NETFILTER).unwrap_err(), rustix::io::Errno::PERM);
            assert!(socket(Family::UNIX, SocketType::STREAM, None).is_ok());

            let shell = |script: &str| run("/bin/bash", &["-c", script]);
            let refused = |(ok, said): (bool, String)| {
                // mount(8) has words of its own for EPERM.
                let eperm = said.contains("Operation not permitted") || said.contains("permission denied");
                assert!(!ok && eperm, "{ok} {said}");
            };
            refused(shell("exec 3<>/dev/tcp/127.0.0.1/9"));
            refused(run("/usr/bin/unshare", &["--net", "true"]));
            refused(run("/usr/bin/unshare", &["--user", "true"]));
            refused(run("/bin/mount", &["-t", "tmpfs", "none", "/mnt"]));
            refused(run("/bin/mknod", &["/dev/viwtest-disk", "b", "8", "0"]));
            refused(run("/usr/sbin/chroot", &["/", "true"]));
            // Its own namespace: another process's may not even be looked at here.
            let own = std::process::id().to_string();
            refused(run("/usr/bin/nsenter", &["-n", "-t", &own, "true"]));
        });
    }

    #[test]
    fn every_dangerous_call_is_refused_to_a_program() {
        // With arguments that do nothing where they are let through.
        let script = "import ctypes, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n\
                      for call in sys.argv[1:]:\n    ctypes.set_errno(0)\n    \
                      said = libc.syscall(int(call), -1, 0, 0, 0, 0)\n    \
                      assert (said, ctypes.get_errno()) == (-1, 1), (call, said, ctypes.get_errno())\n";
        let calls: Vec<String> = DANGEROUS.iter().chain(DANGEROUS_HERE).map(ToString::to_string).collect();
        let args: Vec<&str> = ["-c", script].into_iter().chain(calls.iter().map(String::as_str)).collect();
        let (before, _) = run("/usr/bin/python3", &args[..4]);
        assert!(!before, "without a filter the first is not refused so");
        let calls_again = calls.clone();
        let (ok, said) = locked(move || {
            let args: Vec<&str> = ["-c", script].into_iter().chain(calls_again.iter().map(String::as_str)).collect();
            run("/usr/bin/python3", &args)
        });
        assert!(ok, "{said}");
    }

    #[test]
    fn ordinary_programs_and_threads_work() {
        locked(|| {
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
            let dir = tempfile::tempdir().unwrap();
            let text = "cd \"$0\"; mkfifo f; mkdir d; echo a | tee d/b | sort > c; ln -s c l; cp -a d e; mv e g; \
                        touch -d yesterday c; chmod 600 c; find . -type f | wc -l; rm -r d; sleep 0.01; \
                        gzip c; tar cf t.tar g; cat t.tar | wc -c; id; date; kill -0 $$";
            let (ok, said) = run("/bin/bash", &["-euc", text, &dir.path().display().to_string()]);
            assert!(ok && said.is_empty(), "{said}");
        });
    }

    #[tokio::test]
    async fn a_runtime_with_programs_works() {
        locked(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let output = runtime.block_on(crate::process::Program::new("/bin/cat").input("hello").run()).unwrap();
            assert_eq!(output.stdout, b"hello");
        });
    }
}
