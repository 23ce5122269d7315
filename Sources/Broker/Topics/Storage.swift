internal import Runtime
internal import System
import Wire

/// The data directory: the catalog, the topics' logs, and how they are found again at start-up.
///
///     lock                          held by the running broker
///     catalog                       which topics there are
///     checkpoint                    up to where the logs need not be looked at again
///     journal/<generation>.journal  what is newer
///     topics/<number>-<name>/<partition>-<base offset>.log, .index
final class Storage {
    let root: String
    private let leaderEpoch: Int32
    private(set) var catalog: Catalog
    private(set) var topics: [String: Topic] = [:]
    private(set) var topicsByID: [TopicID: Topic] = [:]
    let files: OpenFiles
    private let lock: File
    private let log: Log

    /// Logs written since the last checkpoint began, and the segment files to synchronize for the next one.
    private(set) var dirtyFiles: Set<String> = []
    private(set) var dirtyLogs: [PartitionLog] = []
    /// The first journal generation that is not checkpointed.
    private(set) var firstGeneration: UInt64
    private(set) var nextGeneration: UInt64
    private(set) var reusableJournals: [String] = []
    /// Start-up found something newer than the checkpoint.
    private(set) var needsCheckpoint = false

    var journalDirectory: String { root + "/journal" }
    private var topicsDirectory: String { root + "/topics" }

    /// Opens a data directory, or makes one, and brings every log into the state of the last acknowledgement.
    init(_ configuration: BrokerConfiguration, log: Log, nowMs: Int64) throws(BrokerError) {
        root = configuration.dataDirectory
        self.log = log
        files = OpenFiles(limit: min(configuration.openFilesMax, CurrentProcess.descriptorLimit / 2))
        let root = root
        lock = try storing(root) { () throws(SystemError) in
            try Directory.create(root + "/topics")
            try Directory.create(root + "/journal")
            return try File(root + "/lock", .readWrite, create: .ifMissing)
        }
        do throws(SystemError) {
            try lock.lock(holder: "another broker")
        } catch {
            throw BrokerError(
                .dataDirectoryInUse,
                "the data directory \(root) is in use by another broker; stop it or choose another --data",
                cause: error)
        }
        firstGeneration = 1
        nextGeneration = 1
        let catalogPath = root + "/catalog"
        if File.exists(catalogPath) {
            catalog = try Catalog(
                decoding: try storing(catalogPath) { () throws(SystemError) in try File.contents(of: catalogPath) })
        } else {
            var random = SystemRandomNumberGenerator()
            catalog = Catalog(clusterID: .random(using: &random))
        }
        // What readers have seen of the logs under the last leader may be gone: whoever asks for this one's looks.
        if let epoch = configuration.leaderEpoch {
            leaderEpoch = epoch
        } else {
            leaderEpoch = catalog.nextEpoch(nowMs: nowMs)
        }
        let contents = catalog.encoded()
        try storing(catalogPath) { () throws(SystemError) in try File.replaceAtomically(catalogPath, with: contents) }
        for entry in catalog.topics {
            adopt(Topic(entry, leaderEpoch: leaderEpoch, root: topicsDirectory, files: files))
        }
        try recover(nowMs: nowMs)
        if configuration.leaderEpoch == nil { System.Thread.sleep(ms: Catalog.epochPassesInMs(nowMs: nowMs)) }
    }

    private func adopt(_ topic: Topic) {
        topics[topic.name] = topic
        topicsByID[topic.entry.id] = topic
    }

    // MARK: Catalog

    func saveCatalog() throws(BrokerError) {
        catalog.topics = topics.values.map(\.entry).sorted { $0.number < $1.number }
        let path = root + "/catalog"
        let contents = catalog.encoded()
        try storing(path) { () throws(SystemError) in try File.replaceAtomically(path, with: contents) }
    }

    /// Makes topics, all with one write of the catalog.
    func create(_ entries: [(name: String, partitions: Int32, config: TopicConfig)], nowMs: Int64) throws(BrokerError) {
        var random = SystemRandomNumberGenerator()
        do throws(BrokerError) {
            for new in entries {
                let entry = Catalog.Entry(
                    number: catalog.nextTopic, name: new.name, id: .random(using: &random), partitions: new.partitions,
                    config: new.config, createdMs: nowMs)
                catalog.nextTopic += 1
                let topic = Topic(entry, leaderEpoch: leaderEpoch, root: topicsDirectory, files: files)
                try storing(topic.directory) { () throws(SystemError) in try Directory.create(topic.directory) }
                adopt(topic)
            }
            try storing(topicsDirectory) { () throws(SystemError) in try Directory.synchronize(topicsDirectory) }
            try saveCatalog()
        } catch {
            for new in entries { forget(new.name) }
            throw error
        }
    }

    private func forget(_ name: String) {
        guard let topic = topics.removeValue(forKey: name) else { return }
        topicsByID[topic.entry.id] = nil
    }

    func delete(_ topic: Topic) throws(BrokerError) {
        forget(topic.name)
        do throws(BrokerError) {
            try saveCatalog()
        } catch {
            adopt(topic)
            throw error
        }
        dirtyLogs.removeAll { $0.topic == topic.entry.number }
        dirtyFiles = dirtyFiles.filter { !$0.hasPrefix(topic.directory + "/") }
        for log in topic.logs { log.closeFiles() }
        // What is left when this fails is removed at the next start.
        try? Directory.removeAll(topic.directory)
    }

    func addPartitions(_ topic: Topic, upTo count: Int32) throws(BrokerError) {
        let before = topic.entry.partitions
        topic.addLogs(upTo: count)
        do throws(BrokerError) {
            try saveCatalog()
        } catch {
            // What were acknowledged in a partition that the catalog does not have would be gone at the next start.
            topic.removeLogs(from: before)
            throw error
        }
    }

    func configure(_ topic: Topic, _ config: TopicConfig) throws(BrokerError) {
        let old = topic.entry.config
        topic.configure(config)
        do throws(BrokerError) {
            try saveCatalog()
        } catch {
            topic.configure(old)
            throw error
        }
    }

    // MARK: Start-up

    private func recover(nowMs: Int64) throws(BrokerError) {
        var known: [UInt32: [Int32: PartitionLog.Recovered]] = [:]
        var checkpointed: UInt64 = 0
        let path = root + "/checkpoint"
        if File.exists(path) {
            do throws(BrokerError) {
                let checkpoint = try Checkpoint(
                    decoding: try storing(path) { () throws(SystemError) in try File.contents(of: path) })
                checkpointed = checkpoint.generation
                for entry in checkpoint.partitions {
                    known[entry.topic, default: [:]][entry.partition] = entry.recovered
                }
            } catch {
                log.warning(
                    "the checkpoint is unusable; every log is checked from its start",
                    [
                        "reason": .string(error.description)
                    ])
            }
        }
        try removeOrphans()
        var changed = false
        for topic in topics.values {
            if try recover(topic, known[topic.entry.number] ?? [:], nowMs: nowMs) { changed = true }
        }
        if try replayJournals(after: checkpointed, nowMs: nowMs) { changed = true }
        firstGeneration = checkpointed + 1
        needsCheckpoint = changed
        try synchronizeUnjournalled()
    }

    /// What was found in the files and not in the journal may be in the kernel's hands only; nobody sees it before it is
    /// safe. That is the end of a few logs. The rest is durable through the journal, which is kept until the first
    /// checkpoint: a start does not wait for the synchronization of every file that was written before a crash.
    private func synchronizeUnjournalled() throws(BrokerError) {
        for log in dirtyLogs where log.endOffset > log.vouchedOffset {
            for segment in log.segments {
                let path = segment.logPath
                guard dirtyFiles.contains(path) else { continue }
                try storing(path) { () throws(SystemError) in try File(path, .readWrite).synchronize() }
            }
        }
    }

    /// Removes the directories of topics that are no longer in the catalog.
    private func removeOrphans() throws(BrokerError) {
        let known = Set(topics.values.map { $0.directory })
        let directory = topicsDirectory
        for name in try storing(directory, { () throws(SystemError) in try Directory.list(directory) })
        where !known.contains("\(directory)/\(name)") {
            log.info("removing the files of a deleted topic", ["directory": .string(name)])
            try? Directory.removeAll("\(directory)/\(name)")
        }
    }

    private func recover(
        _ topic: Topic, _ known: [Int32: PartitionLog.Recovered], nowMs: Int64
    ) throws(BrokerError) -> Bool {
        let directory = topic.directory
        var found: [Int32: [(baseOffset: Int64, size: Int)]] = [:]
        if !Directory.isDirectory(directory) {
            try storing(directory) { () throws(SystemError) in try Directory.create(directory) }
        }
        let names = try storing(directory, { () throws(SystemError) in try Directory.list(directory) })
        var swapped = false
        for name in names where try Segment.finishSwap(name, in: directory) { swapped = true }
        let present =
            swapped ? try storing(directory, { () throws(SystemError) in try Directory.list(directory) }) : names
        for name in present {
            guard let parsed = Segment.parse(name) else {
                // The remains of a compaction that was cut short.
                try? File.remove("\(directory)/\(name)")
                continue
            }
            guard parsed.isLog else { continue }
            let size = try storing(name) { () throws(SystemError) in Int(try File("\(directory)/\(name)").size) }
            found[parsed.partition, default: []].append((parsed.baseOffset, size))
        }
        var changed = false
        for (partition, segments) in found {
            guard let log = topic.log(partition) else { continue }
            let report = try log.recover(
                segments.sorted { $0.baseOffset < $1.baseOffset }, known[partition] ?? PartitionLog.Recovered(),
                nowMs: nowMs)
            if let reason = report.reason {
                self.log.warning(
                    "cut off the damaged end of a log",
                    [
                        "topic": .string(topic.name), "partition": .int(Int64(partition)),
                        "offset": .int(log.endOffset), "bytes": .int(Int64(report.truncatedBytes)),
                        "reason": .string(reason),
                    ])
            }
            if report.scannedBytes > 0 || report.reason != nil {
                changed = true
                noteDirty(log, allSegments: true)
            }
        }
        for (partition, recovered) in known where found[partition] == nil {
            topic.log(partition)?.restoreEmpty(recovered)
        }
        return changed
    }

    /// Appends what the journal has and the logs have not.
    private func replayJournals(after checkpointed: UInt64, nowMs: Int64) throws(BrokerError) -> Bool {
        let directory = journalDirectory
        let generations = try storing(directory) { () throws(SystemError) in try Directory.list(directory) }
            .compactMap { name in name.hasSuffix(".journal") ? UInt64(name.dropLast(8)) : nil }.sorted()
        var byNumber: [UInt32: Topic] = [:]
        for topic in topics.values { byNumber[topic.entry.number] = topic }
        var replayed = 0
        // Where a partition's journal has a hole: what comes behind was not acknowledged (a power loss tore the last
        // group), or cannot be put in its place.
        var torn: Set<ObjectIdentifier> = []
        for generation in generations {
            let path = JournalWriter.path(directory, generation: generation)
            nextGeneration = max(nextGeneration, generation + 1)
            guard generation > checkpointed else {
                reusableJournals.append(path)
                continue
            }
            let contents = try storing(path) { () throws(SystemError) in try File.contents(of: path) }
            try Journal.replay(contents.span) { (header, payload) throws(BrokerError) in
                guard let log = byNumber[header.topic]?.log(header.partition) else { return }
                switch Journal.Kind(rawValue: header.kind) {
                case .batch:
                    guard !torn.contains(ObjectIdentifier(log)) else { return }
                    guard let batch = try? RecordBatch(verifying: payload) else {
                        // The log may have it whole, in its segment file.
                        guard let header = try? RecordBatch(header: payload), header.baseOffset < log.endOffset else {
                            torn.insert(ObjectIdentifier(log))
                            self.log.error(
                                "the journal of a log is damaged; it ends there",
                                [
                                    "topic": .string(byNumber[header.topic]?.name ?? ""),
                                    "partition": .int(Int64(header.partition)), "offset": .int(log.endOffset),
                                ])
                            return
                        }
                        return
                    }
                    if batch.baseOffset <= log.vouchedOffset || batch.baseOffset >= log.endOffset {
                        log.vouchedOffset = max(log.vouchedOffset, batch.nextOffset)
                    }
                    guard batch.baseOffset >= log.endOffset else { return }
                    if batch.baseOffset > log.endOffset {
                        self.log.error(
                            "a log ends before its journal begins",
                            [
                                "topic": .string(byNumber[header.topic]?.name ?? ""),
                                "partition": .int(Int64(header.partition)), "offset": .int(log.endOffset),
                            ])
                    }
                    try log.append(payload, batch, nowMs: nowMs)
                    log.commit(log.end)
                    noteDirty(log)
                    replayed += 1
                case .start:
                    guard payload.count == 8 else { return }
                    try log.moveStart(to: payload.bigEndian(at: 0))
                    noteDirty(log)
                case nil: return
                }
            }
        }
        nextGeneration = max(nextGeneration, checkpointed + 1)
        if replayed > 0 { log.info("restored batches from the journal", ["batches": .int(Int64(replayed))]) }
        return replayed > 0
    }

    // MARK: Checkpoints

    func noteDirty(_ log: PartitionLog, allSegments: Bool = false) {
        log.isNotedDirty = true
        dirtyLogs.append(log)
        for segment in allSegments ? log.segments[...] : log.segments.suffix(1) { dirtyFiles.insert(segment.logPath) }
    }

    /// What must be synchronized, and then written, for everything committed so far to be checkpointed.
    struct PendingCheckpoint: Sendable {
        var files: [String]
        var directories: [String]
        var checkpointPath: String
        var contents: [UInt8]
        var generation: UInt64
        var first: UInt64

        /// Does it: on any thread.
        func perform() throws(BrokerError) {
            for path in files {
                do throws(SystemError) {
                    try File(path, .readWrite).synchronize()
                } catch  where error.code == .notFound {
                    // Deleted meanwhile, by retention or with its topic.
                } catch {
                    throw BrokerError(.storage, "cannot synchronize \(path)", cause: error)
                }
            }
            for path in directories where Directory.isDirectory(path) {
                try storing(path) { () throws(SystemError) in try Directory.synchronize(path) }
            }
            try storing(checkpointPath) { () throws(SystemError) in
                try File.replaceAtomically(checkpointPath, with: contents)
            }
        }
    }

    func beginCheckpoint(upTo generation: UInt64) -> PendingCheckpoint {
        var checkpoint = Checkpoint(generation: generation)
        for topic in topics.values {
            for log in topic.logs where !log.segments.isEmpty || log.startOffset > 0 {
                checkpoint.partitions.append(
                    .init(topic: topic.entry.number, partition: log.partition, recovered: log.checkpointed))
            }
        }
        var directories: Set<String> = []
        for log in dirtyLogs {
            try? log.segments.last?.storeIndex()
            log.isNotedDirty = false
        }
        for path in dirtyFiles { directories.insert(Directory.parent(of: path)) }
        defer {
            dirtyFiles = []
            dirtyLogs = []
            firstGeneration = generation + 1
        }
        return PendingCheckpoint(
            files: Array(dirtyFiles), directories: Array(directories), checkpointPath: root + "/checkpoint",
            contents: checkpoint.encoded(), generation: generation, first: firstGeneration)
    }

    func checkpoint(upTo generation: UInt64) throws(BrokerError) {
        try beginCheckpoint(upTo: generation).perform()
    }

    /// A checkpoint that failed leaves everything to the next one.
    func restore(_ failed: PendingCheckpoint) {
        dirtyFiles.formUnion(failed.files)
        firstGeneration = min(firstGeneration, failed.first)
    }
}
