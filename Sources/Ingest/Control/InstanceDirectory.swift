import Synchronization
import Wire

/// The chat servers that are alive, as `chat.instances` tells it. Any thread may ask.
final class InstanceDirectory: Sendable {
    private struct Entry {
        var record: InstanceRecord
        /// By this machine's monotonic clock: an instance's own clock may be wrong.
        var heardMs: Int64
    }
    private let entries = Mutex<[String: Entry]>([:])

    func put(_ record: InstanceRecord, nowMs: Int64) {
        entries.withLock { $0[record.instance] = Entry(record: record, heardMs: nowMs) }
    }

    func remove(_ instance: String) { entries.withLock { $0[instance] = nil } }

    /// The live instances, by name.
    func live(nowMs: Int64) -> [(record: InstanceRecord, ageMs: Int64)] {
        entries.withLock { entries in
            entries.values.map { ($0.record, nowMs - $0.heardMs) }
                .filter { $0.1 <= InstanceRecord.silenceMsMax }
                .sorted { $0.0.instance < $1.0.instance }
        }
    }

    /// Where a new device is best served: loops of one process share an address, so their connections are added up.
    func leastLoadedURL(nowMs: Int64) -> String? {
        var loads: [String: Int64] = [:]
        for (record, _) in live(nowMs: nowMs) where !record.isDraining {
            loads[record.publicURL, default: 0] += record.connections
        }
        return loads.min { ($0.value, $0.key) < ($1.value, $1.key) }?.key
    }
}
