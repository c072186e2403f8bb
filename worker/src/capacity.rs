//! What this machine offers.

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use talka_core::{coordinator::Capacity, quantities::Bytes};

/// Share of the machine's memory that a worker offers unless told otherwise: its owner works here too.
const MEMORY_SHARE_PERCENT: u64 = 50;

/// Change of the load, in points, that is worth a message.
const LOAD_STEP_PERCENT: u32 = 10;

/// Looks at the machine now and then.
#[derive(Debug)]
pub(crate) struct Machine {
    system: System,
    slots: Option<u32>,
    memory: Option<Bytes>,
}

impl Machine {
    /// The machine, with what its owner allows.
    ///
    /// # Errors
    ///
    /// The system does not tell about itself.
    pub(crate) fn new(slots: Option<u32>, memory: Option<Bytes>) -> Result<Self, sysinfo::Error> {
        let kind = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        Ok(Self { system: System::new_with_specifics(kind)?, slots, memory })
    }

    /// Slots: as many as its owner allows, or one per processor.
    pub(crate) fn slots(&self) -> u32 {
        let cpus = u32::try_from(self.system.cpus().len()).unwrap_or(u32::MAX).max(1);
        self.slots.unwrap_or(cpus).clamp(1, talka_core::limits::WORKER_SLOTS_MAX)
    }

    /// Looks again. What the worker itself knows (its speed, its queue) is left as `known` has it.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage, clamped")]
    pub(crate) fn look(&mut self, known: Capacity) -> Capacity {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        let total = self.system.total_memory();
        Capacity {
            slots: self.slots(),
            memory: self.memory.unwrap_or(Bytes::new(total / 100 * MEMORY_SHARE_PERCENT)),
            cpus: u32::try_from(self.system.cpus().len()).unwrap_or(u32::MAX),
            load_percent: self.system.global_cpu_usage().clamp(0.0, 100.0) as u32,
            free_memory: Bytes::new(self.system.available_memory()),
            ..known
        }
    }
}

/// Whether a change is worth a message.
pub(crate) fn differs(told: &Capacity, now: &Capacity) -> bool {
    /// Free memory moves all the time; an eighth of it matters.
    fn eighths(bytes: Bytes, of: Bytes) -> u64 {
        bytes.get() * 8 / of.get().max(1)
    }
    told.slots != now.slots
        || told.memory != now.memory
        || told.fuel_per_sec != now.fuel_per_sec
        || told.fetched_from_coordinator != now.fetched_from_coordinator
        || told.fetched_from_peers != now.fetched_from_peers
        || told.load_percent.abs_diff(now.load_percent) >= LOAD_STEP_PERCENT
        || eighths(told.free_memory, told.memory) != eighths(now.free_memory, told.memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_a_processor_and_memory() {
        let mut machine = Machine::new(None, None).expect("a machine");
        let capacity = machine.look(Capacity { fuel_per_sec: 7, ..Capacity::default() });
        assert!(capacity.slots >= 1 && capacity.cpus >= 1);
        assert!(capacity.memory > Bytes::mib(64));
        assert_eq!(capacity.fuel_per_sec, 7);
        assert_eq!(Machine::new(Some(3), None).expect("a machine").slots(), 3);
    }

    #[test]
    fn small_changes_are_kept_to_oneself() {
        let told = Capacity {
            slots: 2,
            memory: Bytes::mib(800),
            free_memory: Bytes::mib(450),
            load_percent: 50,
            ..Capacity::default()
        };
        assert!(!differs(&told, &Capacity { load_percent: 55, ..told }));
        assert!(!differs(&told, &Capacity { free_memory: Bytes::mib(440), ..told }));
        assert!(differs(&told, &Capacity { load_percent: 70, ..told }));
        assert!(differs(&told, &Capacity { slots: 1, ..told }));
        assert!(differs(&told, &Capacity { free_memory: Bytes::mib(100), ..told }));
    }
}
