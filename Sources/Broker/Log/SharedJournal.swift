internal import Synchronization
internal import System

/// The journal, for whichever thread waits for the disk.
final class SharedJournal: Sendable {
    struct Outcome: Sendable {
        /// `nil` when there was nothing to write.
        var tookNs: UInt64?
        var failure: BrokerError?
        /// The journal went on in another file; this one is full.
        var rotatedFrom: UInt64?
        /// What the file has room for.
        var room: Int
    }

    private let writer: Mutex<JournalWriter>

    init(_ writer: sending JournalWriter) { self.writer = Mutex(writer) }

    /// Brings a group to disk, and leaves its memory empty to be used again.
    func commit(_ group: inout [UInt8]) -> Outcome {
        writer.withLock { writer in
            var outcome = Outcome(room: 0)
            if !group.isEmpty {
                let startNs = SystemClock().monotonicNs
                do throws(BrokerError) { try writer.write(&group) } catch { outcome.failure = error }
                outcome.tookNs = SystemClock().monotonicNs - startNs
            }
            if outcome.failure == nil, writer.isFull {
                let full = writer.generation
                // When no other file can be had, this one grows and the next group tries again.
                if (try? writer.rotate()) != nil { outcome.rotatedFrom = full }
            }
            outcome.room = writer.room
            group.removeAll(keepingCapacity: group.capacity <= 2 << 20)
            return outcome
        }
    }

    /// The generation's files may be used again.
    func release(upTo generation: UInt64, from first: UInt64) {
        writer.withLock { $0.release(upTo: generation, from: first) }
    }
}
