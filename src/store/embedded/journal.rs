//! What redis-server wrote into its own log file since the last look.

use std::io::SeekFrom;
use std::path::PathBuf;

use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

/// At the end of every write error, and not held back by a rate as the errors are. Redis goes on with "Redis can write
/// again", Valkey with "The server can write again".
const RECOVERED: &str = "AOF write error looks solved";
/// Read at one look; what is left comes with the next.
const PIECE_BYTES_MAX: u64 = 64 * 1024;

/// A reader of the log file that remembers where it was.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    offset: u64,
}

impl Journal {
    /// Begins at the end of what is there now.
    pub(super) fn at_end(path: PathBuf) -> Self {
        let offset = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { path, offset }
    }

    /// Whether it tells of a write error of this process that has ended, in what is new.
    pub(super) async fn tells_of_recovery(&mut self, process: u32) -> std::io::Result<bool> {
        let text = self.read_on().await?;
        let author = format!("{process}:");
        Ok(String::from_utf8_lossy(&text).lines().any(|line| line.starts_with(&author) && line.contains(RECOVERED)))
    }

    /// The whole lines that are new.
    async fn read_on(&mut self) -> std::io::Result<Vec<u8>> {
        let length = tokio::fs::metadata(&self.path).await?.len();
        if length == self.offset {
            return Ok(Vec::new());
        }
        if length < self.offset {
            // Somebody has emptied or replaced it.
            self.offset = 0;
        }
        let mut file = File::open(&self.path).await?;
        file.seek(SeekFrom::Start(self.offset)).await?;
        let mut text = Vec::new();
        file.take(PIECE_BYTES_MAX).read_to_end(&mut text).await?;
        match text.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => text.truncate(end + 1),
            // A line longer than a piece is none of Redis's: passed over, so that the next are found.
            None if text.len() as u64 == PIECE_BYTES_MAX => {}
            None => text.clear(),
        }
        self.offset += text.len() as u64;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn each_recovery_of_the_process_is_told_once_and_only_when_its_line_is_whole() {
        let path = std::env::temp_dir().join(format!("homing-journal-{}", uuid::Uuid::new_v4().simple()));
        let append = |text: &str| {
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.and_then(|mut file| file.write_all(text.as_bytes())).unwrap();
        };
        append("7:M 24 Nov 2026 22:59:02.982 # AOF write error looks solved, Redis can write again.\n");
        let mut journal = Journal::at_end(path.clone());
        assert!(!journal.tells_of_recovery(7).await.unwrap(), "it was there before");
        append("6:M 24 Nov 2026 22:59:02.982 # AOF write error looks solved, Redis can write again.\n");
        assert!(!journal.tells_of_recovery(7).await.unwrap(), "a process that is gone");
        append("7:M 24 Nov 2026 22:59:03.001 * Background saving\n7:M 24 Nov 2026 22:59:03.002 # AOF write err");
        assert!(!journal.tells_of_recovery(7).await.unwrap());
        append("or looks solved. The server can write again.\n");
        assert!(journal.tells_of_recovery(7).await.unwrap());
        assert!(!journal.tells_of_recovery(7).await.unwrap());
        std::fs::write(&path, "7:M 24 Nov # AOF write error looks solved\n").unwrap();
        assert!(journal.tells_of_recovery(7).await.unwrap(), "a file that was emptied is read from its beginning");
        std::fs::remove_file(&path).unwrap();
    }
}
