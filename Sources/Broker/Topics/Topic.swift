/// A topic while the broker runs: its catalog entry and its partitions' logs.
final class Topic {
    var entry: Catalog.Entry
    let directory: String
    private(set) var logs: [PartitionLog] = []
    private let files: OpenFiles
    /// Of all its partitions, until the broker ends.
    private let leaderEpoch: Int32

    init(_ entry: Catalog.Entry, leaderEpoch: Int32, root: String, files: OpenFiles) {
        self.entry = entry
        self.leaderEpoch = leaderEpoch
        self.files = files
        // The number is the directory's identity; the name is there for people and may be cut short.
        directory = "\(root)/\(entry.number)-\(entry.name.prefix(200))"
        addLogs(upTo: entry.partitions)
    }

    var name: String { entry.name }
    var isInternal: Bool { entry.name == Topic.offsetsName }
    static let offsetsName = "__consumer_offsets"

    func log(_ partition: Int32) -> PartitionLog? {
        partition >= 0 && partition < logs.count ? logs[Int(partition)] : nil
    }

    func addLogs(upTo count: Int32) {
        entry.partitions = count
        while logs.count < Int(count) {
            logs.append(
                PartitionLog(
                    topic: entry.number, partition: Int32(logs.count), leaderEpoch: leaderEpoch,
                    directory: directory, files: files, config: entry.config))
        }
    }

    /// Takes back what `addLogs` added, before anyone could write there.
    func removeLogs(from count: Int32) {
        entry.partitions = count
        logs.removeLast(logs.count - Int(count))
    }

    func configure(_ config: TopicConfig) {
        entry.config = config
        for log in logs { log.config = config }
    }
}
