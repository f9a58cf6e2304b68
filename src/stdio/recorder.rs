//! The recorder of a connection's data (`-o`, `-x`, `--progress`).
use super::{
    Error, StreamOptions, Writer,
    progress::{self, Progress},
};
use std::{
    io::{self, BufWriter, IsTerminal, Write},
    path::Path,
};

/// The direction of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataDirection {
    Sent,
    Received,
}

/// A recorder of what is sent and received.
#[derive(Debug)]
pub(crate) struct Recorder {
    output: Option<BufWriter<Writer>>,
    hex_dump: Option<BufWriter<Writer>>,
    /// Bytes dumped so far in each direction.
    offsets: [u64; 2],
    progress: Option<Progress>,
}

impl Recorder {
    /// Opens the files of `options`; `None` if nothing is to be recorded.
    ///
    /// # Errors
    /// [`Error::Record`].
    pub(super) fn open(options: &StreamOptions) -> Result<Option<Recorder>, Error> {
        let open = |path: &Path| match Writer::create(path, options.append) {
            Ok(file) => Ok(BufWriter::new(file)),
            Err(error) => Err(Error::Record { path: path.to_owned(), error }),
        };
        let output = options.output.as_deref().map(open).transpose()?;
        let hex_dump = options.hex_dump.as_deref().map(open).transpose()?;
        let progress =
            (options.progress && io::stderr().is_terminal()).then(|| Progress::new(progress::input_size()));
        let records = output.is_some() || hex_dump.is_some() || progress.is_some();
        Ok(records.then_some(Recorder { output, hex_dump, offsets: [0; 2], progress }))
    }

    /// Records bytes, which have been written to the files when this returns.
    ///
    /// # Errors
    /// Those of writing to a file.
    pub(super) fn record(&mut self, direction: DataDirection, bytes: &[u8]) -> io::Result<()> {
        if let Some(progress) = &self.progress {
            progress.count(direction, bytes.len() as u64);
        }
        if let Some(output) = &mut self.output {
            output.write_all(bytes)?;
            output.flush()?;
        }
        if let Some(dump) = &mut self.hex_dump {
            let offset = &mut self.offsets[direction as usize];
            for line in bytes.chunks(16) {
                writeln!(dump, "{}", hex_line(direction, *offset, line))?;
                *offset += line.len() as u64;
            }
            dump.flush()?;
        }
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.end();
        }
    }
}

/// Returns a line of the dump in traditional netcat's form: `> 00000000 68 69 0a ...  # hi.`
fn hex_line(direction: DataDirection, offset: u64, bytes: &[u8]) -> String {
    let arrow = if direction == DataDirection::Sent { '>' } else { '<' };
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
    let text: String =
        bytes.iter().map(|&byte| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '.' }).collect();
    format!("{arrow} {offset:08x} {hex:<48}# {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_line_has_direction_offset_bytes_and_text() {
        assert_eq!(
            hex_line(DataDirection::Sent, 0x10, b"GET /\r\n"),
            "> 00000010 47 45 54 20 2f 0d 0a                            # GET /.."
        );
        assert_eq!(
            hex_line(DataDirection::Received, 0, &[0xff; 16]),
            format!("< 00000000 {}# ................", "ff ".repeat(16))
        );
    }
}
