import Wire

/// How groups and their offsets are kept: records of the internal, compacted topic `__consumer_offsets`, in the form that
/// Apache Kafka gives them, so that its tools can read them.
enum GroupRecord: Equatable {
    case offset(group: String, OffsetStore.Place, OffsetStore.Committed?)
    case group(String, GroupSnapshot?)

    var key: [UInt8] {
        var key: [UInt8] = []
        switch self {
        case .offset(let group, let place, _):
            key.appendBigEndian(Int16(1))
            key.appendText(group)
            key.appendText(place.topic)
            key.appendBigEndian(place.partition)
        case .group(let group, _):
            key.appendBigEndian(Int16(2))
            key.appendText(group)
        }
        return key
    }

    /// `nil` is a tombstone: the offset or the group is gone.
    func value(nowMs: Int64) -> [UInt8]? {
        var value: [UInt8] = []
        switch self {
        case .offset(_, _, nil), .group(_, nil): return nil
        case .offset(_, _, let committed?):
            value.appendBigEndian(Int16(3))
            value.appendBigEndian(committed.offset)
            value.appendBigEndian(committed.leaderEpoch)
            value.appendText(committed.metadata)
            value.appendBigEndian(committed.committedMs)
        case .group(_, let snapshot?):
            value.appendBigEndian(Int16(3))
            value.appendText(snapshot.protocolType)
            value.appendBigEndian(snapshot.generation)
            value.appendNullableText(snapshot.protocolName)
            value.appendNullableText(snapshot.leader)
            value.appendBigEndian(nowMs)
            value.appendBigEndian(Int32(snapshot.members.count))
            for member in snapshot.members {
                value.appendText(member.id)
                value.appendNullableText(member.instance)
                value.appendText(member.clientID)
                value.appendText(member.clientHost)
                value.appendBigEndian(Int32(clamping: member.rebalanceTimeoutMs))
                value.appendBigEndian(Int32(clamping: member.sessionTimeoutMs))
                for bytes in [member.metadata, member.assignment] {
                    value.appendBigEndian(Int32(bytes.count))
                    value += bytes
                }
            }
        }
        return value
    }

    /// `nil` for a record of a kind that this broker does not write.
    init?(key: Span<UInt8>, value: Span<UInt8>?) throws(BrokerError) {
        var reader = RequestReader(key)
        switch try reader.int16() {
        case 0, 1:
            let group = try reader.string()
            let place = OffsetStore.Place(topic: try reader.string(), partition: try reader.int32())
            guard let value else {
                self = .offset(group: group, place, nil)
                return
            }
            var reader = RequestReader(value)
            guard try reader.int16() == 3 else { return nil }
            self = .offset(
                group: group, place,
                OffsetStore.Committed(
                    offset: try reader.int64(), leaderEpoch: try reader.int32(), metadata: try reader.string(),
                    committedMs: try reader.int64()))
        case 2:
            let group = try reader.string()
            guard let value else {
                self = .group(group, nil)
                return
            }
            var reader = RequestReader(value)
            guard try reader.int16() == 3 else { return nil }
            let type = try reader.string()
            let generation = try reader.int32()
            let name = try reader.nullableString()
            let leader = try reader.nullableString()
            _ = try reader.int64()
            let members = try reader.array { reader throws(BrokerError) in
                let id = try reader.string()
                let instance = try reader.nullableString()
                let clientID = try reader.string()
                let clientHost = try reader.string()
                let rebalanceTimeoutMs = Int(try reader.int32())
                let sessionTimeoutMs = Int(try reader.int32())
                return GroupSnapshot.Member(
                    id: id, instance: instance, clientID: clientID, clientHost: clientHost,
                    sessionTimeoutMs: sessionTimeoutMs, rebalanceTimeoutMs: rebalanceTimeoutMs,
                    metadata: try reader.byteArray(), assignment: try reader.byteArray())
            }
            self = .group(
                group,
                GroupSnapshot(
                    group: group, generation: generation, protocolType: type, protocolName: name, leader: leader,
                    members: members))
        default: return nil
        }
    }
}

extension [UInt8] {
    fileprivate mutating func appendNullableText(_ text: String?) {
        guard let text else { return appendBigEndian(Int16(-1)) }
        appendText(text)
    }
}
