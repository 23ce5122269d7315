// What a consumer reads, and from where.
internal import CRdKafka

extension Consumer {
    /// Reads exactly these partitions from now on. Also the answer to `.assigned`: then name at least what was given,
    /// and any partitions of other topics to read beside them.
    public func assign(_ starts: [PartitionStart]) throws(KafkaError) {
        fetcher?.assign(starts)
        try answer(starts)
    }

    /// Reads nothing from now on. Also the answer to `.revoked`.
    public func unassign() throws(KafkaError) {
        fetcher?.assign([])
        try answer(nil)
    }

    /// Reads these too, without disturbing the others. For consumers without a group's assignment.
    public func add(_ starts: [PartitionStart]) throws(KafkaError) {
        if let fetcher { return try fetcher.add(starts) }
        try learnLeaders(of: starts)
        let list = PartitionList(starts)
        let raw = try unsafe handle.raw
        if let error = unsafe KafkaError(
            consuming: rd_kafka_incremental_assign(raw, list.raw), place: "assign more")
        {
            throw error
        }
        for start in starts { begun[start.partition] = start }
    }

    public func remove(_ partitions: [TopicPartition]) throws(KafkaError) {
        if let fetcher { return try fetcher.remove(partitions) }
        let list = PartitionList(partitions)
        let raw = try unsafe handle.raw
        if let error = unsafe KafkaError(
            consuming: rd_kafka_incremental_unassign(raw, list.raw), place: "unassign some")
        {
            throw error
        }
        for partition in partitions { begun[partition] = nil }
    }

    public var assignment: [TopicPartition] {
        if let fetcher { return fetcher.assignment }
        var list: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?
        guard let library, unsafe rd_kafka_assignment(library.raw, &list) == RD_KAFKA_RESP_ERR_NO_ERROR,
            let list = unsafe list
        else { return [] }
        return unsafe PartitionList(consuming: list).partitions
    }

    /// Continues at these places; what was fetched but not yet polled is dropped, what was polled is not.
    public func seek(_ starts: [PartitionStart], timeoutMs: Int = 5000) throws(KafkaError) {
        if let fetcher { return try fetcher.seek(starts) }
        let list = PartitionList(starts)
        let raw = try unsafe handle.raw
        // Before 2.1 librdkafka took its milliseconds for microseconds, and was late within five of them.
        let timeout = rd_kafka_version() < 0x02_01_00_00 ? timeoutMs * 1000 : timeoutMs
        let error = unsafe KafkaError(
            consuming: rd_kafka_seek_partitions(raw, list.raw, Int32(clamping: timeout)), place: "seek")
        if let error { throw error }
        // One that has lost its place cannot be sought any more (2.0.2): everything is assigned again.
        guard list.entries.contains(where: { $0.error == RD_KAFKA_RESP_ERR__STATE }) else {
            if let error = list.firstError(place: "seek") { throw error }
            return
        }
        let all = Array(begun.keys)
        for (partition, position) in zip(all, try positions(all)) {
            if let position { begun[partition]?.position = .offset(position) }
        }
        for start in starts { begun[start.partition] = start }
        try assign(Array(begun.values))
    }

    /// Stops fetching; messages already polled stay valid. Pausing drops what had been fetched ahead, so pause for long
    /// waits and simply poll less for short ones.
    public func pause(_ partitions: [TopicPartition]) throws(KafkaError) {
        if let fetcher { return try fetcher.pause(partitions) }
        let list = PartitionList(partitions)
        let code = unsafe rd_kafka_pause_partitions(try handle.raw, list.raw)
        if code != RD_KAFKA_RESP_ERR_NO_ERROR { throw KafkaError(code, place: "pause") }
        if let error = list.firstError(place: "pause") { throw error }
    }

    public func resume(_ partitions: [TopicPartition]) throws(KafkaError) {
        if let fetcher { return try fetcher.resume(partitions) }
        let list = PartitionList(partitions)
        let code = unsafe rd_kafka_resume_partitions(try handle.raw, list.raw)
        if code != RD_KAFKA_RESP_ERR_NO_ERROR { throw KafkaError(code, place: "resume") }
        if let error = list.firstError(place: "resume") { throw error }
    }

    /// The offset after the last message polled from each partition; nil before the first.
    public func positions(_ partitions: [TopicPartition]) throws(KafkaError) -> [Int64?] {
        if let fetcher { return try fetcher.positions(partitions) }
        let list = PartitionList(partitions)
        let code = unsafe rd_kafka_position(try handle.raw, list.raw)
        if code != RD_KAFKA_RESP_ERR_NO_ERROR { throw KafkaError(code, place: "position") }
        return list.entries.map(\.offsetIfAny)
    }

    /// For who has taken everything and knows that there is more: librdkafka fetches nothing while its queue is full, and
    /// before 2.2 looks at the queue again only after a second, or when there is something else to do for its thread. A
    /// question to the partition's broker is that.
    public func hurry(_ partition: TopicPartition) {
        if fetcher == nil { _ = try? watermarks(partition, timeoutMs: 1000) }
    }
}

extension DirectFetcher {
    func assign(_ starts: [PartitionStart]) {
        for index in entries.indices where entries[index].state.isAssigned { entries[index].state.unassign() }
        for start in starts { assign(start) }
        changed()
    }

    private func assign(_ start: PartitionStart) {
        entries[place(start.partition)].state.assign(
            start.position.forFetching, log: start.log, epoch: start.leaderEpoch ?? -1)
    }

    func add(_ starts: [PartitionStart]) throws(KafkaError) {
        for start in starts where assigned(start.partition) != nil {
            throw KafkaError(RD_KAFKA_RESP_ERR__CONFLICT, place: "assign more: \(start.partition)")
        }
        for start in starts { assign(start) }
        changed()
    }

    func remove(_ partitions: [TopicPartition]) throws(KafkaError) {
        for index in try indices(of: partitions, "unassign some") { entries[index].state.unassign() }
        changed()
    }

    func seek(_ starts: [PartitionStart]) throws(KafkaError) {
        for (index, start) in zip(try indices(of: starts.map(\.partition), "seek"), starts) {
            entries[index].state.seek(
                start.position.forFetching, log: start.log, epoch: start.leaderEpoch ?? -1)
        }
        changed()
    }

    func pause(_ partitions: [TopicPartition]) throws(KafkaError) {
        for index in try indices(of: partitions, "pause") { entries[index].state.pause() }
        changed()
    }

    func resume(_ partitions: [TopicPartition]) throws(KafkaError) {
        for index in try indices(of: partitions, "resume") { entries[index].state.resume() }
        changed()
    }

    func positions(_ partitions: [TopicPartition]) throws(KafkaError) -> [Int64?] {
        partitions.map { partition in assigned(partition).flatMap { entries[$0].state.position } }
    }

    var assignment: [TopicPartition] { entries.filter(\.state.isAssigned).map(name) }

    private func indices(of partitions: [TopicPartition], _ what: String) throws(KafkaError) -> [Int] {
        try partitions.map { partition throws(KafkaError) in
            if let index = assigned(partition) { return index }
            throw KafkaError(RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, place: "\(what): \(partition)")
        }
    }
}

extension StartPosition {
    fileprivate var forFetching: IncomingPartition.Start {
        switch self {
        case .beginning: .earliest
        case .end: .latest
        case .committed: .committed
        case .offset(let offset): .offset(offset)
        }
    }
}
