//! Packets as a pcapng file: each as it came in, and, if it left, as it left, with interface, direction,
//! verdict, and what became of it as a comment.

use std::{
    borrow::Cow,
    collections::HashMap,
    io::{self, Write},
    time::Duration,
};

use pcap_file::{
    DataLink, PcapError,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption},
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};

use super::{Packet, Piece};

/// `if_tsresol`: times are in nanoseconds.
const NANOSECONDS: u8 = 9;

/// The way of a frame: `epb_flags`, bits 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    In = 1,
    Out = 2,
}

impl<W: Write> std::fmt::Debug for File<W> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("File(..)")
    }
}

/// A file that is being written.
pub struct File<W: Write> {
    writer: PcapNgWriter<W>,
    /// The numbers of interfaces in the file, by name.
    interfaces: HashMap<String, u32>,
    frame_bytes: u32,
    packets: u64,
}

/// What is said of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Told<'t> {
    /// When it was.
    pub since_1970: Duration,
    /// The name of the interface that it came in through.
    pub entrance: &'t str,
    /// What became of it.
    pub came: &'t str,
    /// The name of the interface that it left by.
    pub exit: &'t str,
    /// What it is as it left.
    pub left: &'t str,
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

impl<W: Write> File<W> {
    /// Begins a file whose frames have at most so many bytes; what was asked for stands in its head.
    pub fn begin(writer: W, frame_bytes: u32, asked: &str) -> io::Result<Self> {
        let program = concat!("nlb ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: pcap_file::Endianness::native(),
            options: vec![
                SectionHeaderOption::Comment(Cow::Owned(asked.to_owned())),
                SectionHeaderOption::UserApplication(Cow::Borrowed(program)),
            ],
            ..SectionHeaderBlock::default()
        };
        let writer = PcapNgWriter::with_section_header(writer, section).map_err(io_error)?;
        Ok(Self {
            writer,
            interfaces: HashMap::new(),
            frame_bytes,
            packets: 0,
        })
    }

    /// Writes a packet.
    pub fn write(&mut self, packet: &Packet<'_>, told: &Told<'_>) -> io::Result<()> {
        self.packets += 1;
        let time = told.since_1970;
        let entrance = self.interface(told.entrance)?;
        self.frame(entrance, time, packet.came, Direction::In, told.came)?;
        let Some(left) = packet.left else {
            return Ok(());
        };
        let exit = self.interface(told.exit)?;
        self.frame(exit, time, left, Direction::Out, told.left)
    }

    /// Ends the file with what is not in it: packets for which there was no room.
    pub fn end(mut self, since_1970: Duration, lost: u64) -> io::Result<W> {
        if !self.interfaces.is_empty() {
            let nanoseconds = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
            let statistics = InterfaceStatisticsBlock {
                interface_id: 0,
                // The upper half comes first.
                timestamp: nanoseconds.rotate_left(32),
                options: vec![
                    InterfaceStatisticsOption::IsbIfRecv(self.packets + lost),
                    InterfaceStatisticsOption::IsbOsDrop(lost),
                ],
            };
            let written = self.writer.write_pcapng_block(statistics);
            let _bytes = written.map_err(io_error)?;
        }
        self.flush()?;
        Ok(self.writer.into_inner())
    }

    /// Hands on what was written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }

    /// How many packets were written.
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// The number of an interface, which is described when it is first met.
    fn interface(&mut self, name: &str) -> io::Result<u32> {
        if let Some(number) = self.interfaces.get(name) {
            return Ok(*number);
        }
        let number = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        let description = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.frame_bytes,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        let written = self.writer.write_pcapng_block(description);
        let _bytes = written.map_err(io_error)?;
        self.interfaces.insert(name.to_owned(), number);
        Ok(number)
    }

    fn frame(
        &mut self,
        interface: u32,
        timestamp: Duration,
        piece: Piece<'_>,
        direction: Direction,
        comment: &str,
    ) -> io::Result<()> {
        // What the two frames of one packet have in common.
        let comment = format!("packet {}: {comment}", self.packets);
        let block = EnhancedPacketBlock {
            interface_id: interface,
            timestamp,
            original_len: piece.frame_bytes,
            data: Cow::Borrowed(piece.bytes),
            options: vec![
                EnhancedPacketOption::Comment(Cow::Owned(comment)),
                EnhancedPacketOption::Flags(direction as u32),
            ],
        };
        let written = self.writer.write_pcapng_block(block);
        written.map(|_bytes| ()).map_err(io_error)
    }
}

#[cfg(test)]
mod tests {
    use nlb_common::stop::Stop;
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;
    use crate::capture::Action;

    #[test]
    fn what_is_written_is_read_again_with_interface_direction_time_and_comment() {
        let packet = Packet {
            at_ns: 0,
            interface: 1,
            action: Action::Redirect,
            stops: Vec::<Stop>::new(),
            came: Piece {
                bytes: &[1; 61],
                frame_bytes: 1514,
            },
            left: Some(Piece {
                bytes: &[2; 60],
                frame_bytes: 60,
            }),
        };
        let told = Told {
            since_1970: Duration::from_nanos(1_800_000_000_123_456_789),
            entrance: "eth0",
            came: "sent on through eth1",
            exit: "eth1",
            left: "as it left",
        };
        let mut file = File::begin(Vec::new(), 2048, "--client 203.0.113.9").unwrap();
        file.write(&packet, &told).unwrap();
        file.write(
            &Packet {
                left: None,
                ..packet.clone()
            },
            &told,
        )
        .unwrap();
        assert_eq!(file.packets(), 2);
        let bytes = file.end(told.since_1970, 3).unwrap();

        let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
        let mut seen = Vec::new();
        let mut is_told = false;
        let mut names = Vec::new();
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(described) => names.extend(
                    described
                        .options
                        .into_iter()
                        .filter_map(|option| match option {
                            InterfaceDescriptionOption::IfName(name) => Some(name.into_owned()),
                            _ => None,
                        }),
                ),
                Block::EnhancedPacket(block) => {
                    assert_eq!(block.timestamp, told.since_1970);
                    let said: Vec<String> = block
                        .options
                        .iter()
                        .filter_map(|option| match option {
                            EnhancedPacketOption::Comment(text) => Some(text.clone().into_owned()),
                            EnhancedPacketOption::Flags(flags) => Some(flags.to_string()),
                            _ => None,
                        })
                        .collect();
                    seen.push((
                        block.interface_id,
                        block.data.len(),
                        block.original_len,
                        said,
                    ));
                }
                Block::InterfaceStatistics(block) => {
                    let counted = InterfaceStatisticsOption::IsbOsDrop(3);
                    is_told = block.options.contains(&counted);
                }
                _ => {}
            }
        }
        let said = |comment: &str, direction: Direction| {
            vec![comment.to_owned(), (direction as u32).to_string()]
        };
        let came = |packet| {
            let comment = format!("packet {packet}: sent on through eth1");
            (0, 61, 1514, said(&comment, Direction::In))
        };
        let left = (1, 60, 60, said("packet 1: as it left", Direction::Out));
        assert_eq!(names, ["eth0", "eth1"]);
        assert_eq!(seen, [came(1), left, came(2)]);
        assert!(is_told, "three were lost");
    }
}
