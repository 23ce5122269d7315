internal import CRdKafka

public struct GroupListing: Sendable, Equatable {
    public let id: String
    public let state: GroupState
}

public enum GroupState: String, Sendable {
    case preparingRebalance, completingRebalance, stable, dead, empty, unknown

    init(_ raw: rd_kafka_consumer_group_state_t) {
        switch raw {
        case RD_KAFKA_CONSUMER_GROUP_STATE_PREPARING_REBALANCE: self = .preparingRebalance
        case RD_KAFKA_CONSUMER_GROUP_STATE_COMPLETING_REBALANCE: self = .completingRebalance
        case RD_KAFKA_CONSUMER_GROUP_STATE_STABLE: self = .stable
        case RD_KAFKA_CONSUMER_GROUP_STATE_DEAD: self = .dead
        case RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY: self = .empty
        default: self = .unknown
        }
    }
}

public struct GroupDescription: Sendable, Equatable {
    public struct Member: Sendable, Equatable {
        public let id: String
        public let clientID: String
        public let groupInstanceID: String?
        public let host: String
        public let partitions: [TopicPartition]
    }

    public let id: String
    public let state: GroupState
    public let assignor: String
    public let members: [Member]
}

/// What a group has committed on one partition.
public struct GroupOffset: Sendable, Equatable {
    public let partition: TopicPartition
    /// nil where nothing was committed.
    public let offset: Int64?
    public let metadata: String
}

extension Admin {
    /// Every group of the cluster. Brokers that do not answer are skipped, unless none does.
    public func groups(timeoutMs: Int = 5000) throws(KafkaError) -> [GroupListing] {
        let call = try AdminCall(
            self, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS, timeoutMs: timeoutMs, place: "list groups")
        unsafe rd_kafka_ListConsumerGroups(handle.raw, call.options, call.queue)
        return try unsafe call.answer { event throws(KafkaError) in
            let result = unsafe rd_kafka_event_ListConsumerGroups_result(event)
            var count = 0
            let groups = unsafe rd_kafka_ListConsumerGroups_result_valid(result, &count)
            let listings = (0..<count).compactMap { index -> GroupListing? in
                guard let group = unsafe groups?[index] else { return nil }
                return unsafe GroupListing(
                    id: adminString(rd_kafka_ConsumerGroupListing_group_id(group)),
                    state: GroupState(rd_kafka_ConsumerGroupListing_state(group)))
            }
            var errorCount = 0
            let errors = unsafe rd_kafka_ListConsumerGroups_result_errors(result, &errorCount)
            if listings.isEmpty, errorCount > 0, let error = unsafe errors?[0] {
                throw KafkaError(
                    unsafe rd_kafka_error_code(error), message: unsafe adminString(rd_kafka_error_string(error)),
                    place: "list groups")
            }
            return listings.sorted { $0.id < $1.id }
        }
    }

    /// A group that does not exist is described as dead.
    public func describeGroups(
        _ ids: [String], timeoutMs: Int = 5000
    ) throws(KafkaError) -> [(group: String, Result<GroupDescription, KafkaError>)] {
        guard !ids.isEmpty else { return [] }
        let call = try AdminCall(
            self, RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, timeoutMs: timeoutMs, place: "describe groups")
        try unsafe withCStrings(ids) { names in
            unsafe rd_kafka_DescribeConsumerGroups(handle.raw, names, ids.count, call.options, call.queue)
        }
        return try unsafe call.answer { event throws(KafkaError) in
            var count = 0
            let groups = unsafe rd_kafka_DescribeConsumerGroups_result_groups(
                rd_kafka_event_DescribeConsumerGroups_result(event), &count)
            return (0..<count).compactMap { index in
                guard let group = unsafe groups?[index] else { return nil }
                let id = unsafe adminString(rd_kafka_ConsumerGroupDescription_group_id(group))
                if let error = unsafe rd_kafka_ConsumerGroupDescription_error(group),
                    unsafe rd_kafka_error_code(error) != RD_KAFKA_RESP_ERR_NO_ERROR
                {
                    let failure = unsafe KafkaError(
                        rd_kafka_error_code(error), message: adminString(rd_kafka_error_string(error)),
                        place: "describe group \(id)")
                    return (id, .failure(failure))
                }
                return (id, .success(unsafe description(of: group, id: id)))
            }
        }
    }

    private func description(of group: OpaquePointer, id: String) -> GroupDescription {
        let count = unsafe rd_kafka_ConsumerGroupDescription_member_count(group)
        let members = (0..<count).compactMap { index -> GroupDescription.Member? in
            guard let member = unsafe rd_kafka_ConsumerGroupDescription_member(group, index) else { return nil }
            let partitions = unsafe rd_kafka_MemberDescription_assignment(member)
                .flatMap { unsafe rd_kafka_MemberAssignment_partitions($0) }
                .map { unsafe PartitionList.entries(of: $0).map(\.partition) }
            return unsafe GroupDescription.Member(
                id: adminString(rd_kafka_MemberDescription_consumer_id(member)),
                clientID: adminString(rd_kafka_MemberDescription_client_id(member)),
                groupInstanceID: rd_kafka_MemberDescription_group_instance_id(member).map {
                    unsafe String(cString: $0)
                },
                host: adminString(rd_kafka_MemberDescription_host(member)), partitions: (partitions ?? []).sorted())
        }
        return unsafe GroupDescription(
            id: id, state: GroupState(rd_kafka_ConsumerGroupDescription_state(group)),
            assignor: adminString(rd_kafka_ConsumerGroupDescription_partition_assignor(group)), members: members)
    }

    /// What many groups have committed, on all partitions where they have committed anything. All requests are under way
    /// at once; the answers are in the order of `groups`.
    public func groupOffsets(
        _ groups: [String], timeoutMs: Int = 5000
    ) throws(KafkaError) -> [(group: String, Result<[GroupOffset], KafkaError>)] {
        let deadline = Deadline(afterMs: timeoutMs)
        // librdkafka (2.0.2) looks each partition of an answer up in the list of those before it: a quarter of a second
        // for 10,000 partitions. So where there are many, they are asked for in slices.
        let partitions = try handle.metadata(ofAllTopics: true, timeoutMs: timeoutMs).topics.flatMap { topic in
            topic.partitions.map { TopicPartition(topic.name, $0.id) }
        }
        guard partitions.count > Self.partitionsOfRequest else {
            return try groupOffsets(groups.map { ($0, nil) }, timeoutMs: Int(deadline.remainingMs))
        }
        let slices = stride(from: 0, to: partitions.count, by: Self.partitionsOfRequest).map {
            Array(partitions[$0..<min($0 + Self.partitionsOfRequest, partitions.count)])
        }
        let questions = groups.flatMap { group in slices.map { (group, Optional($0)) } }
        let answers = try groupOffsets(questions, timeoutMs: Int(deadline.remainingMs))
        return groups.indices.map { index in
            var offsets: [GroupOffset] = []
            for (_, answer) in answers[index * slices.count..<(index + 1) * slices.count] {
                switch answer {
                case .success(let found): offsets += found.filter { $0.offset != nil }
                case .failure(let error): return (groups[index], .failure(error))
                }
            }
            return (groups[index], .success(offsets))
        }
    }

    private static let partitionsOfRequest = 250

    /// What one group has committed on these partitions.
    public func groupOffsets(
        _ group: String, _ partitions: [TopicPartition], timeoutMs: Int = 5000
    ) throws(KafkaError) -> [GroupOffset] {
        guard !partitions.isEmpty else { return [] }
        return try groupOffsets([(group, partitions)], timeoutMs: timeoutMs)[0].1.get()
    }

    private func groupOffsets(
        _ questions: [(group: String, partitions: [TopicPartition]?)], timeoutMs: Int
    ) throws(KafkaError) -> [(group: String, Result<[GroupOffset], KafkaError>)] {
        // Each request has its own queue, so that a failed answer, which does not name its group, can be told apart.
        var calls: [GroupOffsetsCall] = []
        for (group, partitions) in questions {
            calls.append(try GroupOffsetsCall(self, group, partitions, timeoutMs: timeoutMs))
        }
        return calls.map { call in
            do throws(KafkaError) {
                return (call.group, .success(try call.wait()))
            } catch {
                return (call.group, .failure(error))
            }
        }
    }

    /// Sets what a group without members has committed, as `fanout` does to rewind a stage.
    public func setGroupOffsets(
        _ group: String, _ offsets: [CommittedOffset], timeoutMs: Int = 5000
    ) throws(KafkaError) {
        guard !offsets.isEmpty else { return }
        let call = try AdminCall(
            self, RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS, timeoutMs: timeoutMs, place: "set offsets of \(group)")
        let list = PartitionList(offsets)
        var request = unsafe rd_kafka_AlterConsumerGroupOffsets_new(group, list.raw)
        defer { unsafe rd_kafka_AlterConsumerGroupOffsets_destroy(request) }
        unsafe rd_kafka_AlterConsumerGroupOffsets(handle.raw, &request, 1, call.options, call.queue)
        try unsafe call.answer { event throws(KafkaError) in
            var count = 0
            let results = unsafe rd_kafka_AlterConsumerGroupOffsets_result_groups(
                rd_kafka_event_AlterConsumerGroupOffsets_result(event), &count)
            for index in 0..<count {
                guard let result = unsafe results?[index] else { continue }
                if let error = unsafe groupError(result, "set offsets of") { throw error }
                guard let partitions = unsafe rd_kafka_group_result_partitions(result) else { continue }
                for entry in unsafe PartitionList.entries(of: partitions)
                where entry.error != RD_KAFKA_RESP_ERR_NO_ERROR {
                    throw KafkaError(entry.error, place: "set offsets of \(group) on \(entry.partition)")
                }
            }
        }
    }

    public func deleteGroups(_ ids: [String], timeoutMs: Int = 5000) throws(KafkaError) -> [AdminOutcome] {
        guard !ids.isEmpty else { return [] }
        let call = try AdminCall(self, RD_KAFKA_ADMIN_OP_DELETEGROUPS, timeoutMs: timeoutMs, place: "delete groups")
        var requests = unsafe [OpaquePointer?]()
        for id in ids { unsafe requests.append(rd_kafka_DeleteGroup_new(id)) }
        defer { unsafe requests.forEach { unsafe rd_kafka_DeleteGroup_destroy($0) } }
        unsafe rd_kafka_DeleteGroups(handle.raw, &requests, requests.count, call.options, call.queue)
        return try unsafe call.answer { event throws(KafkaError) in
            var count = 0
            let results = unsafe rd_kafka_DeleteGroups_result_groups(
                rd_kafka_event_DeleteGroups_result(event), &count)
            return (0..<count).compactMap { index in
                guard let result = unsafe results?[index] else { return nil }
                let code =
                    unsafe rd_kafka_group_result_error(result).map { unsafe rd_kafka_error_code($0) }
                    ?? RD_KAFKA_RESP_ERR_NO_ERROR
                return unsafe AdminOutcome(
                    name: adminString(rd_kafka_group_result_name(result)), code: code, message: "",
                    place: "delete group")
            }
        }
    }
}

private func groupError(_ result: OpaquePointer, _ what: String) -> KafkaError? {
    guard let error = unsafe rd_kafka_group_result_error(result),
        unsafe rd_kafka_error_code(error) != RD_KAFKA_RESP_ERR_NO_ERROR
    else { return nil }
    return unsafe KafkaError(
        rd_kafka_error_code(error), message: adminString(rd_kafka_error_string(error)),
        place: "\(what) \(adminString(rd_kafka_group_result_name(result)))")
}

/// One question for one group's offsets, under way.
private final class GroupOffsetsCall {
    let group: String
    private let call: AdminCall

    init(
        _ admin: Admin, _ group: String, _ partitions: [TopicPartition]?, timeoutMs: Int
    ) throws(KafkaError) {
        self.group = group
        call = try AdminCall(
            admin, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS, timeoutMs: timeoutMs, place: "offsets of \(group)")
        var request: OpaquePointer?
        if let partitions {
            let list = PartitionList(partitions)
            unsafe request = rd_kafka_ListConsumerGroupOffsets_new(group, list.raw)
        } else {
            unsafe request = rd_kafka_ListConsumerGroupOffsets_new(group, nil)
        }
        unsafe rd_kafka_ListConsumerGroupOffsets(admin.handle.raw, &request, 1, call.options, call.queue)
        unsafe rd_kafka_ListConsumerGroupOffsets_destroy(request)
    }

    func wait() throws(KafkaError) -> [GroupOffset] {
        try unsafe call.answer { event throws(KafkaError) in
            var count = 0
            let results = unsafe rd_kafka_ListConsumerGroupOffsets_result_groups(
                rd_kafka_event_ListConsumerGroupOffsets_result(event), &count)
            guard count > 0, let result = unsafe results?[0] else { return [] }
            if let error = unsafe groupError(result, "offsets of") { throw error }
            guard let partitions = unsafe rd_kafka_group_result_partitions(result) else { return [] }
            return unsafe PartitionList.entries(of: partitions).map { entry in
                GroupOffset(partition: entry.partition, offset: entry.offsetIfAny, metadata: entry.metadata)
            }
        }
    }
}

/// Lends an array of C strings.
private func withCStrings(
    _ strings: [String], _ body: (UnsafeMutablePointer<UnsafePointer<CChar>?>) -> Void
) throws(KafkaError) {
    var bytes: [CChar] = []
    var starts: [Int] = []
    for string in strings {
        starts.append(bytes.count)
        bytes.append(contentsOf: string.utf8.map { CChar(bitPattern: $0) })
        bytes.append(0)
    }
    unsafe bytes.withUnsafeBufferPointer { bytes in
        var pointers = unsafe starts.map { start in unsafe bytes.baseAddress.map { unsafe $0 + start } }
        unsafe pointers.withUnsafeMutableBufferPointer { pointers in
            if let base = pointers.baseAddress { unsafe body(base) }
        }
    }
}
