//! Messages that wait until their reader takes them, as far as there is room. Knows no reader.

use std::{collections::VecDeque, io};

/// How much may wait, in bytes: some five thousand lines.
const ROOM_BYTES: usize = 1 << 20;

/// Where messages go.
pub(super) trait Sink {
    /// Writes as much of a message as can be written without waiting, and says how much that was;
    /// [`io::ErrorKind::WouldBlock`] if nothing.
    fn write(&mut self, record: &[u8]) -> io::Result<usize>;

    /// The message that so many were lost.
    fn losses(&self, count: u64) -> Vec<u8>;
}

/// Messages on their way to a sink, in their order.
#[derive(Debug)]
pub(super) struct Queue<S> {
    sink: S,
    waiting: VecDeque<Vec<u8>>,
    /// How much they are.
    bytes: usize,
    /// How much of the first one is written.
    written: usize,
    /// How many were lost, and how many of them nobody was told of.
    lost: u64,
    untold: u64,
}

impl<S> Queue<S> {
    pub(super) const fn new(sink: S) -> Self {
        Self {
            sink,
            waiting: VecDeque::new(),
            bytes: 0,
            written: 0,
            lost: 0,
            untold: 0,
        }
    }

    /// Has messages go elsewhere from now on.
    pub(super) fn redirect(&mut self, sink: S) {
        self.sink = sink;
    }

    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<S: Sink> Queue<S> {
    /// Writes a message, or keeps it until it can be written, or loses it.
    pub(super) fn push(&mut self, record: &[u8]) {
        self.pump();
        if self.bytes + record.len() > ROOM_BYTES {
            self.lose();
            return;
        }
        self.tell_losses();
        self.append(record.to_vec());
        self.pump();
    }

    /// Writes what waits, as far as it is taken now.
    pub(super) fn pump(&mut self) {
        loop {
            let Some(first) = self.waiting.front() else {
                if self.untold == 0 {
                    return;
                }
                self.tell_losses();
                continue;
            };
            let rest = first.get(self.written..).unwrap_or_default();
            match self.sink.write(rest) {
                Ok(length) if length < rest.len() => self.written += length,
                Ok(_) => self.forget_first(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // There is nobody, or nobody who could take this one. That, too, would be lost.
                Err(_) => {
                    self.forget_first();
                    self.lost += 1;
                }
            }
        }
    }

    fn append(&mut self, record: Vec<u8>) {
        self.bytes += record.len();
        self.waiting.push_back(record);
    }

    fn forget_first(&mut self) {
        self.written = 0;
        let length = self.waiting.pop_front().map_or(0, |record| record.len());
        self.bytes -= length;
    }

    fn lose(&mut self) {
        self.lost += 1;
        self.untold += 1;
    }

    fn tell_losses(&mut self) {
        if self.untold > 0 {
            self.append(self.sink.losses(self.untold));
            self.untold = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A reader that takes so much and no more.
    #[derive(Default)]
    struct Pipe {
        room: usize,
        taken: Vec<u8>,
    }

    impl Sink for Pipe {
        fn write(&mut self, record: &[u8]) -> io::Result<usize> {
            let length = record.len().min(self.room);
            if length == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= length;
            self.taken.extend_from_slice(&record[..length]);
            Ok(length)
        }

        fn losses(&self, count: u64) -> Vec<u8> {
            format!("lost {count}\n").into_bytes()
        }
    }

    #[derive(Debug, Clone)]
    enum Event {
        Message(usize),
        Read(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (1_usize..300_000).prop_map(Event::Message),
            (0_usize..500_000).prop_map(Event::Read),
        ]
    }

    proptest! {
        #[test]
        fn messages_come_in_order_and_whole_and_each_lost_one_is_told(
            events in proptest::collection::vec(event(), 0..60)
        ) {
            let mut queue = Queue::new(Pipe::default());
            let mut sent = 0_u64;
            for event in events {
                match event {
                    Event::Message(length) => {
                        let line = format!("{sent} {}\n", ".".repeat(length));
                        sent += 1;
                        queue.push(line.as_bytes());
                    }
                    Event::Read(room) => {
                        queue.sink.room += room;
                        queue.pump();
                    }
                }
                prop_assert!(queue.bytes <= ROOM_BYTES + 100, "a note of losses, and no more");
            }
            queue.sink.room = usize::MAX;
            queue.pump();
            prop_assert!(queue.is_empty());
            let taken = String::from_utf8(queue.sink.taken).unwrap();
            let (mut next, mut lost) = (0, 0);
            for line in taken.lines() {
                let (first, rest) = line.split_once(' ').unwrap();
                if first == "lost" {
                    let count: u64 = rest.parse().unwrap();
                    next += count;
                    lost += count;
                } else {
                    prop_assert_eq!(first.parse::<u64>().unwrap(), next);
                    next += 1;
                }
            }
            prop_assert_eq!((next, lost), (sent, queue.lost));
        }
    }

    #[test]
    fn a_reader_that_is_gone_holds_nothing_up() {
        struct Gone;
        impl Sink for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn losses(&self, _: u64) -> Vec<u8> {
                Vec::new()
            }
        }
        let mut queue = Queue::new(Gone);
        queue.push(b"one\n");
        queue.push(b"two\n");
        assert!(queue.is_empty());
        assert_eq!(queue.lost(), 2);
    }
}
