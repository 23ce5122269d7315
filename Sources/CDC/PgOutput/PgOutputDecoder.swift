public import PostgresClient

/// Decodes `pgoutput` messages strictly: what is too short, too long or of an unknown kind throws, and no row is believed
/// before its last column has been looked at.
public struct PgOutputDecoder: Sendable {
    /// Between Stream Start and Stream Stop most messages carry the (sub)transaction that they belong to.
    public private(set) var isInStream = false

    /// - Parameter isInStream: what follows was sent between a Stream Start and a Stream Stop.
    public init(isInStream: Bool = false) { self.isInStream = isInStream }

    /// - Returns: the message, and inside a stream the (sub)transaction it belongs to.
    public mutating func decode(_ bytes: Span<UInt8>) throws(PgOutputError) -> (message: PgOutputMessage, xid: UInt32?)
    {
        var reader = ByteReader(bytes)
        let kind = try reader.byte()
        var xid: UInt32?
        if isInStream {
            switch kind {
            case UInt8(ascii: "R"), UInt8(ascii: "Y"), UInt8(ascii: "I"), UInt8(ascii: "U"), UInt8(ascii: "D"),
                UInt8(ascii: "T"), UInt8(ascii: "M"):
                xid = try reader.uint32()
            default: break
            }
        }
        let message = try body(kind, &reader)
        guard reader.isAtEnd else { throw PgOutputError(.trailingBytes, at: reader.offset) }
        switch message {
        case .streamStart:
            if isInStream { throw PgOutputError(.outOfPlace, at: 0) }
            isInStream = true
        case .streamStop:
            if !isInStream { throw PgOutputError(.outOfPlace, at: 0) }
            isInStream = false
        case .begin, .commit, .streamCommit, .streamAbort:
            if isInStream { throw PgOutputError(.outOfPlace, at: 0) }
        default: break
        }
        return (message, xid)
    }

    private func body(_ kind: UInt8, _ reader: inout ByteReader) throws(PgOutputError) -> PgOutputMessage {
        switch kind {
        // The frequent ones first.
        case UInt8(ascii: "I"):
            let relation = try reader.uint32()
            try Self.expect(UInt8(ascii: "N"), &reader)
            return .insert(relation: relation, new: try Self.tuple(&reader))
        case UInt8(ascii: "U"):
            let relation = try reader.uint32()
            let next = try reader.byte()
            guard next != UInt8(ascii: "N") else {
                return .update(relation: relation, old: nil, new: try Self.tuple(&reader))
            }
            let old = try Self.oldTuple(next, &reader)
            try Self.expect(UInt8(ascii: "N"), &reader)
            return .update(relation: relation, old: old, new: try Self.tuple(&reader))
        case UInt8(ascii: "D"):
            let relation = try reader.uint32()
            return .delete(relation: relation, old: try Self.oldTuple(try reader.byte(), &reader))
        case UInt8(ascii: "B"):
            let lsn = try reader.lsn()
            let time = try reader.timeUs()
            return .begin(finalLSN: lsn, commitTimeUs: time, xid: try reader.uint32())
        case UInt8(ascii: "C"):
            try Self.noFlags(&reader)
            let lsn = try reader.lsn()
            let end = try reader.lsn()
            return .commit(lsn: lsn, endLSN: end, commitTimeUs: try reader.timeUs())
        case UInt8(ascii: "R"): return .relation(try Self.relation(&reader))
        case UInt8(ascii: "Y"):
            let oid = try reader.uint32()
            let schema = try reader.string()
            return .type(oid: oid, schema: schema, name: try reader.string())
        case UInt8(ascii: "O"):
            let lsn = try reader.lsn()
            return .origin(lsn: lsn, name: try reader.string())
        case UInt8(ascii: "T"): return try Self.truncate(&reader)
        case UInt8(ascii: "M"):
            let transactional = try reader.bool()
            let lsn = try reader.lsn()
            let prefix = try reader.string()
            return .message(
                transactional: transactional, lsn: lsn, prefix: prefix, content: try reader.take(try reader.uint32()))
        case UInt8(ascii: "S"):
            let xid = try reader.uint32()
            return .streamStart(xid: xid, isFirst: try reader.bool())
        case UInt8(ascii: "E"): return .streamStop
        case UInt8(ascii: "c"):
            let xid = try reader.uint32()
            try Self.noFlags(&reader)
            let lsn = try reader.lsn()
            let end = try reader.lsn()
            return .streamCommit(xid: xid, lsn: lsn, endLSN: end, commitTimeUs: try reader.timeUs())
        case UInt8(ascii: "A"):
            let xid = try reader.uint32()
            return .streamAbort(xid: xid, subXID: try reader.uint32())
        default: throw PgOutputError(.unknownMessage, at: 0)
        }
    }

    private static func expect(_ kind: UInt8, _ reader: inout ByteReader) throws(PgOutputError) {
        guard try reader.byte() == kind else { throw PgOutputError(.unknownTuple, at: reader.offset - 1) }
    }

    private static func noFlags(_ reader: inout ByteReader) throws(PgOutputError) {
        guard try reader.byte() == 0 else { throw PgOutputError(.badNumber, at: reader.offset - 1) }
    }

    private static func oldTuple(_ kind: UInt8, _ reader: inout ByteReader) throws(PgOutputError) -> OldTuple {
        switch kind {
        case UInt8(ascii: "K"): return OldTuple(isKeyOnly: true, tuple: try tuple(&reader))
        case UInt8(ascii: "O"): return OldTuple(isKeyOnly: false, tuple: try tuple(&reader))
        default: throw PgOutputError(.unknownTuple, at: reader.offset - 1)
        }
    }

    private static func tuple(_ reader: inout ByteReader) throws(PgOutputError) -> Tuple {
        let count = Int(try reader.uint16())
        let start = reader.offset
        for _ in 0..<count {
            switch try reader.byte() {
            case UInt8(ascii: "n"), UInt8(ascii: "u"): break
            case UInt8(ascii: "t"), UInt8(ascii: "b"): _ = try reader.take(try reader.uint32())
            default: throw PgOutputError(.unknownColumn, at: reader.offset - 1)
            }
        }
        return Tuple(columns: count, bytes: start..<reader.offset)
    }

    private static func relation(_ reader: inout ByteReader) throws(PgOutputError) -> Relation {
        let id = try reader.uint32()
        let schema = try reader.string()
        let name = try reader.string()
        guard let identity = Relation.Identity(rawValue: try reader.byte()) else {
            throw PgOutputError(.badNumber, at: reader.offset - 1)
        }
        var columns: [Relation.Column] = []
        for _ in 0..<(try reader.uint16()) {
            let flags = try reader.byte()
            guard flags <= 1 else { throw PgOutputError(.badNumber, at: reader.offset - 1) }
            let name = try reader.string()
            let type = try reader.uint32()
            columns.append(
                Relation.Column(
                    isKey: flags == 1, name: name, type: type, modifier: Int32(bitPattern: try reader.uint32())))
        }
        // pg_catalog is sent as nothing.
        return Relation(
            id: id, schema: schema.isEmpty ? "pg_catalog" : schema, name: name, identity: identity, columns: columns)
    }

    private static func truncate(_ reader: inout ByteReader) throws(PgOutputError) -> PgOutputMessage {
        let count = try reader.uint32()
        let options = try reader.byte()
        guard options <= 3 else { throw PgOutputError(.badNumber, at: reader.offset - 1) }
        var relations: [UInt32] = []
        for _ in 0..<count { relations.append(try reader.uint32()) }
        return .truncate(relations: relations, cascade: options & 1 != 0, restartIdentity: options & 2 != 0)
    }
}

/// What stands around the plugin's messages in a replication stream.
public enum ReplicationMessage: Equatable, Sendable {
    /// The plugin's message is the rest of the bytes from `payload` on.
    case data(start: LSN, serverEnd: LSN, payload: Int)
    /// Every transaction that committed before `serverEnd` has been sent.
    case keepalive(serverEnd: LSN, replyRequested: Bool)

    public static func decode(_ bytes: Span<UInt8>) throws(PgOutputError) -> ReplicationMessage {
        var reader = ByteReader(bytes)
        switch try reader.byte() {
        case UInt8(ascii: "w"):
            let start = try reader.lsn()
            let end = try reader.lsn()
            _ = try reader.timeUs()
            return .data(start: start, serverEnd: end, payload: reader.offset)
        case UInt8(ascii: "k"):
            let end = try reader.lsn()
            _ = try reader.timeUs()
            let reply = try reader.bool()
            guard reader.isAtEnd else { throw PgOutputError(.trailingBytes, at: reader.offset) }
            return .keepalive(serverEnd: end, replyRequested: reply)
        default: throw PgOutputError(.unknownMessage, at: 0)
        }
    }
}
