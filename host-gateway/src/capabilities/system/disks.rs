//! Mounted file systems that hold data, each once. Refuses pseudo file systems, and to wait
//! for a mount that does not answer: it is left out and not asked again until it does.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use procfs::process::{MountInfo, Process};
use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};
use tokio::sync::oneshot;

use super::super::wit::viworks::gateway::system as wit;
use super::{mib, percent, unreadable};
use crate::failure::Failure;

/// For all of them together.
const DEADLINE: Duration = Duration::from_secs(2);
const MAX_DISKS: usize = 128;

/// Those that hold no data of their own, are full by nature, or mount something when touched.
const PSEUDO: [&str; 34] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "udf",
    "erofs",
    "cramfs",
    "fuse.snapfuse",
    "nfsd",
];

#[derive(Debug)]
pub(super) struct Disks {
    skip: Vec<PathBuf>,
    /// Mount points that were asked and have not answered: at most one thread waits for each.
    asked: Arc<Mutex<HashSet<PathBuf>>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Mount {
    point: PathBuf,
    device: String,
    file_system: String,
}

impl Disks {
    pub(super) fn new(skip: Vec<PathBuf>) -> Self {
        Self { skip, asked: Arc::default() }
    }

    pub(super) async fn list(&self) -> Result<Vec<wit::Disk>, Failure> {
        let mounts =
            Process::myself().and_then(|me| me.mountinfo()).map_err(|e| unreadable("/proc/self/mountinfo", &e))?;
        let asked: Vec<_> =
            real(mounts.0, &self.skip).into_iter().map(|m| (self.ask(&m.point, statvfs_of), m)).collect();
        let until = tokio::time::Instant::now() + DEADLINE;
        let mut disks = Vec::new();
        for (answer, mount) in asked {
            let Some(answer) = answer else { continue };
            match tokio::time::timeout_at(until, answer).await {
                Ok(Ok(Some(stat))) => disks.extend(disk(&mount, &stat)),
                Ok(_) => {}
                Err(_) => tracing::warn!(mount = %mount.point.display(), "a file system does not answer: left out"),
            }
        }
        disks.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
        Ok(disks)
    }

    /// Ask in a thread of its own: one that hangs in the kernel can't be stopped, and must
    /// not hold up the runtime's end as a blocking task would.
    fn ask<T: Send + 'static>(
        &self,
        point: &Path,
        read: fn(&Path) -> Option<T>,
    ) -> Option<oneshot::Receiver<Option<T>>> {
        let waiting = |set: &Mutex<HashSet<PathBuf>>, point: &Path, add: bool| {
            let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
            if add { set.insert(point.to_owned()) } else { set.remove(point) }
        };
        if !waiting(&self.asked, point, true) {
            return None;
        }
        let (tell, answer) = oneshot::channel();
        let (asked, path) = (Arc::clone(&self.asked), point.to_owned());
        let thread = std::thread::Builder::new().name("statvfs".into()).stack_size(64 * 1024).spawn(move || {
            let said = read(&path);
            waiting(&asked, &path, false);
            let _ = tell.send(said);
        });
        if thread.is_err() {
            waiting(&self.asked, point, false);
            return None;
        }
        Some(answer)
    }
}

fn statvfs_of(path: &Path) -> Option<StatVfs> {
    statvfs(path).ok()
}

/// Of several mounts of one device, the one with the shortest path.
fn real(mounts: Vec<MountInfo>, skip: &[PathBuf]) -> Vec<Mount> {
    let mut mounts: Vec<_> = mounts
        .into_iter()
        .filter(|m| !PSEUDO.contains(&m.fs_type.as_str()))
        // A container's root is an overlay; others show the disk below them once more.
        .filter(|m| m.fs_type != "overlay" || m.mount_point == Path::new("/"))
        .filter(|m| !skip.iter().any(|s| m.mount_point.starts_with(s)))
        .collect();
    mounts.sort_by(|a, b| {
        let key = |m: &MountInfo| (m.mount_point.as_os_str().len(), m.mount_point.clone());
        key(a).cmp(&key(b))
    });
    let (mut devices, mut points) = (HashSet::new(), HashSet::new());
    mounts.retain(|m| points.insert(m.mount_point.clone()) && devices.insert(m.majmin.clone()));
    mounts.truncate(MAX_DISKS);
    mounts
        .into_iter()
        .map(|m| Mount { point: m.mount_point, device: m.mount_source.unwrap_or_default(), file_system: m.fs_type })
        .collect()
}

fn disk(mount: &Mount, stat: &StatVfs) -> Option<wit::Disk> {
    if stat.f_blocks == 0 {
        return None;
    }
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    Some(wit::Disk {
        mount_point: mount.point.to_string_lossy().into_owned(),
        device: mount.device.clone(),
        file_system: mount.file_system.clone(),
        total_mib: mib(bytes(stat.f_blocks)),
        used_mib: mib(bytes(used)),
        available_mib: mib(bytes(stat.f_bavail)),
        used_percent: percent(used, used.saturating_add(stat.f_bavail)),
        inodes_used_percent: percent(stat.f_files.saturating_sub(stat.f_ffree), stat.f_files),
        read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(line: &str) -> MountInfo {
        MountInfo::from_line(line).unwrap()
    }

    #[test]
    fn real_file_systems_once_each() {
        let mounts = vec![
            mount("1 0 8:1 /sub /var/lib/docker/volumes/x rw - ext4 /dev/sda1 rw"),
            mount("2 0 8:1 / / rw - ext4 /dev/sda1 rw"),
            mount("3 0 8:2 / /home rw - xfs /dev/sda2 rw"),
            mount("4 0 0:5 / /proc rw - proc proc rw"),
            mount("5 0 0:6 / /run rw - tmpfs tmpfs rw"),
            mount("6 0 0:7 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw"),
            mount("7 0 7:0 / /snap/core/1 ro - squashfs /dev/loop0 ro"),
            mount("8 0 0:9 / /mnt/nfs rw - nfs4 192.0.2.1:/x rw"),
            mount("9 0 8:3 / /skipped/a rw - ext4 /dev/sda3 rw"),
        ];
        let found = real(mounts, &[PathBuf::from("/skipped")]);
        let points: Vec<_> = found.iter().map(|m| m.point.to_str().unwrap()).collect();
        assert_eq!(points, ["/", "/home", "/mnt/nfs"]);
    }

    #[tokio::test]
    async fn a_mount_that_hangs_is_asked_once() {
        let disks = Disks::new(Vec::new());
        fn hang(_: &Path) -> Option<()> {
            std::thread::park();
            None
        }
        let first = disks.ask(Path::new("/dead"), hang);
        assert!(first.is_some());
        assert!(disks.ask(Path::new("/dead"), hang).is_none());
        let other = disks.ask(Path::new("/"), statvfs_of).unwrap();
        assert!(tokio::time::timeout(DEADLINE, other).await.unwrap().unwrap().is_some());
        let again = disks.ask(Path::new("/"), statvfs_of);
        assert!(again.is_some(), "one that answered can be asked again");
    }

    #[tokio::test]
    async fn agrees_with_df() {
        let disks = Disks::new(Vec::new()).list().await.unwrap();
        let root = disks.iter().find(|d| d.mount_point == "/").unwrap();
        let df = std::process::Command::new("df").args(["--output=size,pcent", "-B1M", "/"]).output().unwrap();
        let text = String::from_utf8(df.stdout).unwrap();
        let numbers: Vec<f32> =
            text.lines().nth(1).unwrap().split_whitespace().map(|w| w.trim_end_matches('%').parse().unwrap()).collect();
        assert!((f64::from(root.total_mib) - f64::from(numbers[0])).abs() <= 1.0, "{root:?} {text}");
        assert!((root.used_percent - numbers[1]).abs() <= 2.0, "{root:?} {text}");
    }
}
