public import Wire

/// What stands in `chat.instances` when a worker begins to read it: the last words of instances that are there, and of those
/// that died without a farewell, however long ago.
///
/// Old and new are told apart by the times of the log alone: an instance that is there has spoken within a second of the
/// last that spoke. No clock of ours has a part in it, and the writers' may differ by what is allowed here. Whoever is passed
/// over wrongly speaks again within a second.
public struct PastAnnouncements {
    private static let behindMsMax: Int64 = 60_000
    private var last: [String: (record: InstanceRecord, timestampMs: Int64)] = [:]

    public init() {}

    public mutating func take(_ record: InstanceRecord, timestampMs: Int64) {
        last[record.instance] = (record, timestampMs)
    }

    public mutating func withdrawn(_ instance: String) { last[instance] = nil }

    /// Those who may be there, by name, once the log has been read to its end.
    public var candidates: [InstanceRecord] {
        let newestMs = last.values.map(\.timestampMs).max() ?? 0
        return last.values.filter { newestMs - $0.timestampMs <= Self.behindMsMax }.map(\.record)
            .sorted { $0.instance < $1.instance }
    }
}
