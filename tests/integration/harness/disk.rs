//! A disk that can be filled.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};

use super::folder::Folder;

const PAGE_BYTES: u64 = 4096;

/// A small file system in memory, so that filling it harms nobody.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    folder: Arc<Folder>,
    bytes: u64,
}

impl Disk {
    /// Mounts it; says why not where that is not permitted.
    pub(crate) fn mount(bytes: u64) -> Option<Self> {
        let folder = Folder::new("disk");
        let size = format!("size={bytes}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self { folder: Arc::new(folder), bytes }),
            Ok(output) => {
                println!("no full disk: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("no full disk: mount: {error}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Leaves no page free, or nearly none.
    pub(crate) fn fill(&self) {
        let filler = File::create(self.filler()).expect("the disk is mounted");
        let (mut size, mut piece) = (0, self.bytes);
        while piece >= PAGE_BYTES {
            match fallocate(&filler, FallocateFlags::empty(), size, piece) {
                Ok(()) => size += piece,
                Err(_) => piece /= 2,
            }
        }
    }

    pub(crate) fn free(&self) {
        let _ = std::fs::remove_file(self.filler());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if Arc::strong_count(&self.folder) > 1 {
            return;
        }
        // Lazily: Redis, which dies with its test, may still hold it.
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}
