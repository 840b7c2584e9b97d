//! Counters and gauges of a store, all plain numbers, summed over its shards.

macro_rules! stats {
    ($($(#[doc = $doc:literal])+ $field:ident,)+) => {
        /// What a store holds and has done since it was opened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats { $($(#[doc = $doc])+ pub $field: u64,)+ }

        impl Stats {
            /// Adds another shard's numbers.
            pub fn add(&mut self, other: &Stats) {
                $(self.$field = self.$field.saturating_add(other.$field);)+
            }

            /// Every number with its name, in declaration order, for a status page or a metrics exporter.
            #[must_use]
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field)),+]
            }

            /// What a number means, for people.
            #[must_use]
            pub fn meaning(field: &str) -> Option<&'static str> {
                match field {
                    $(stringify!($field) => Some(concat!($($doc),+).trim()),)+
                    _ => None,
                }
            }
        }
    };
}

stats! {
    /// Shards in these numbers.
    shards,
    /// Objects in the index.
    objects,
    /// Leases held: one per object in this version.
    leases,
    /// Bytes of records (header, value, padding) that the index points to.
    live_bytes,
    /// Bytes allocated to segments that are neither live nor free to write: reclaimable by cleaning.
    dead_bytes,
    /// Bytes of files: segments, spares, checkpoints and runs.
    total_bytes,
    /// Bytes the store may use.
    capacity_bytes,
    /// Segments in use (without spares).
    segments,
    /// Memory the index holds.
    index_bytes,
    /// Puts acknowledged.
    puts,
    /// Gets answered.
    gets,
    /// Gets served from a mapping; large values without a copy.
    gets_mapped,
    /// Gets that had to wait for the disk.
    gets_cold,
    /// Leases named in acknowledged touches.
    touches,
    /// Batches made durable.
    batches,
    /// Bytes written in batches, with headers and padding.
    batch_bytes,
    /// Bytes of zeros written ahead of need into new files; they count into write amplification.
    prewritten_bytes,
    /// Segments opened in a file used before.
    recycled_segments,
    /// Classes with an open segment.
    open_classes,
    /// Bytes of memory for batches registered with the kernel. 0 in a store that has been written: the limit on locked
    /// memory is too small (`ulimit -l`, LimitMEMLOCK); writes work and cost a little more.
    registered_bytes,
    /// Sync operations besides the batches' own.
    syncs,
    /// Checkpoints written.
    checkpoints,
    /// Sweeps done.
    sweeps,
    /// Objects removed by sweeps.
    expired,
    /// Records copied by cleaning.
    cleaned,
    /// Bytes read by cleaning.
    cleaning_bytes,
    /// Arcs of the index.
    arcs,
    /// Objects that found no place in a table and are in a stash.
    stashed,
    /// Objects known by their whole key because no run holds them yet.
    recents,
    /// Runs.
    runs,
    /// Bytes of runs, with those merged and not unlinked yet.
    run_bytes,
    /// Runs written from memory.
    runs_written,
    /// Runs merged into others.
    runs_merged,
    /// Bytes written to runs.
    run_bytes_written,
    /// Reads of pages of runs.
    run_reads,
    /// Tables rebuilt.
    rebuilds,
    /// Arcs split in two.
    splits,
    /// Changes that waited for a table to be rebuilt.
    crowded,
    /// Records read because only they could say what the index holds.
    confirmations,
    /// Records read that were another key's with the same tag.
    false_matches,
    /// Segments freed.
    segments_freed,
    /// Bytes of large dead records given back out of segments in use.
    punched_bytes,
    /// Large dead records not remembered for punching because too many were: cleaning gives them back.
    holes_forgotten,
    /// Segments given up whose space is not free yet, because a reader holds bytes of them.
    segments_pinned,
    /// Segments no longer read through memory, since what was there could not be read or was not sound.
    segments_quarantined,
    /// Damaged records or batches found (and never served).
    corrupt,
    /// Damaged files and pages of runs, and objects missed because of them: they are read as before, but scans and sweeps pass
    /// over them until cleaning has moved them.
    run_damage,
    /// Runs found damaged, or missing when the store was opened, whose files are not gone yet.
    damaged_runs,
    /// Bytes scrub has read from sealed segments and runs.
    scrubbed_bytes,
    /// Records scrub has found sound.
    scrubbed_records,
    /// Damaged records and stretches scrub has found, live or dead; the live ones are counted as damaged records, too.
    scrub_damaged,
    /// Passes of scrub over all sealed segments and the runs.
    scrub_passes,
    /// Operations refused: full, read-only or too large.
    refused,
    /// Writes or reads the device failed.
    device_errors,
    /// Operations waiting or in flight.
    queue_depth,
    /// 1 per shard that takes no more changes.
    read_only,
    /// 1 per shard that deletes nothing because the clock jumped.
    deletion_suspended,
    /// Batches replayed when the store was opened.
    replayed_batches,
}

#[cfg(test)]
mod tests {
    //! Goal: every number has a name and says what it means. Method: all of them, and one that is not there.
    use super::*;

    #[test]
    fn every_number_says_what_it_means() {
        for (name, _) in Stats::default().fields() {
            assert!(Stats::meaning(name).is_some_and(|text| text.ends_with('.')), "{name}");
        }
        assert_eq!(Stats::meaning("objects"), Some("Objects in the index."));
        assert_eq!(Stats::meaning("unheard of"), None);
    }
}
