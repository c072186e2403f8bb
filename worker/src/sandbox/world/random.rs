//! Randomness that every machine agrees on.
//!
//! The stream of a task is the extendable output of BLAKE3 in derive-key mode: context
//! `talka-1 random`, key material the job's seed and then the task's index, each as 8 bytes, little
//! endian. The program draws from it front to back. It is as good as any generator for sampling, and
//! public: nothing secret may rest on it.

/// The random stream of one task.
#[derive(Debug)]
pub(crate) struct Random {
    seed: u64,
    index: u64,
    /// Bytes that were drawn.
    position: u64,
    /// Set up at the first draw: most programs never draw.
    stream: Option<blake3::OutputReader>,
}

impl Random {
    /// The stream of the task `index` of a job with that `seed`.
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        Self { seed, index, position: 0, stream: None }
    }

    /// Bytes that were drawn so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Goes on from an earlier [position](Self::position).
    pub(crate) fn set_position(&mut self, position: u64) {
        (self.position, self.stream) = (position, None);
    }

    /// The next `buffer.len()` bytes.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        let (seed, index, position) = (self.seed, self.index, self.position);
        let stream = self.stream.get_or_insert_with(|| {
            let mut hasher = blake3::Hasher::new_derive_key("talka-1 random");
            hasher.update(&seed.to_le_bytes()).update(&index.to_le_bytes());
            let mut stream = hasher.finalize_xof();
            stream.set_position(position);
            stream
        });
        stream.fill(buffer);
        self.position = self.position.saturating_add(buffer.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, index: u64, sizes: &[usize]) -> Vec<u8> {
        let mut random = Random::new(seed, index);
        let mut all = Vec::new();
        for size in sizes {
            let mut part = vec![0; *size];
            random.fill(&mut part);
            all.extend(part);
        }
        all
    }

    #[test]
    fn the_stream_does_not_depend_on_how_it_is_drawn() {
        assert_eq!(draw(7, 3, &[100]), draw(7, 3, &[1, 0, 63, 1, 35]));
    }

    #[test]
    fn the_stream_goes_on_from_any_position() {
        let whole = draw(7, 3, &[500]);
        for position in [0, 1, 64, 499] {
            let mut random = Random::new(7, 3);
            random.set_position(position as u64);
            let mut rest = vec![0; 500 - position];
            random.fill(&mut rest);
            assert_eq!(rest, whole[position..]);
            assert_eq!(random.position(), 500);
        }
    }

    #[test]
    fn each_task_has_its_own_stream() {
        let streams = [(7, 3), (7, 4), (8, 3), (3, 7)].map(|(seed, index)| draw(seed, index, &[32]));
        for (i, one) in streams.iter().enumerate() {
            assert!(streams[i + 1..].iter().all(|other| other != one));
        }
    }

    #[test]
    fn the_stream_is_the_documented_one() {
        let mut expected = [0; 40];
        let mut hasher = blake3::Hasher::new_derive_key("talka-1 random");
        hasher.update(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]).finalize_xof().fill(&mut expected);
        assert_eq!(draw(1, 2, &[40]), expected);
    }
}
