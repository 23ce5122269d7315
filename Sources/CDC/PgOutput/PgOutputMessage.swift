public import PostgresClient

/// One message of the `pgoutput` plugin, protocol versions 1 and 2, as the server sends them inside a replication stream.
///
/// Rows stay where they are: a tuple is a range of the message's bytes.
public enum PgOutputMessage: Equatable, Sendable {
    case begin(finalLSN: LSN, commitTimeUs: Int64, xid: UInt32)
    case commit(lsn: LSN, endLSN: LSN, commitTimeUs: Int64)
    case origin(lsn: LSN, name: String)
    case relation(Relation)
    case type(oid: UInt32, schema: String, name: String)
    case insert(relation: UInt32, new: Tuple)
    /// The old row comes when the key has changed (only the key's columns), or always with REPLICA IDENTITY FULL.
    case update(relation: UInt32, old: OldTuple?, new: Tuple)
    case delete(relation: UInt32, old: OldTuple)
    case truncate(relations: [UInt32], cascade: Bool, restartIdentity: Bool)
    /// What `pg_logical_emit_message` wrote.
    case message(transactional: Bool, lsn: LSN, prefix: String, content: Range<Int>)
    /// A part of a transaction that is still under way follows, up to `streamStop`.
    case streamStart(xid: UInt32, isFirst: Bool)
    case streamStop
    case streamCommit(xid: UInt32, lsn: LSN, endLSN: LSN, commitTimeUs: Int64)
    /// The transaction, or one of its subtransactions, has been rolled back.
    case streamAbort(xid: UInt32, subXID: UInt32)
}

/// What a table looks like from here on in the stream.
public struct Relation: Equatable, Sendable {
    public struct Column: Equatable, Sendable {
        /// Part of the replica identity: present in old rows of kind `key`.
        public var isKey: Bool
        public var name: String
        public var type: UInt32
        public var modifier: Int32

        public init(isKey: Bool, name: String, type: UInt32, modifier: Int32 = -1) {
            self.isKey = isKey
            self.name = name
            self.type = type
            self.modifier = modifier
        }
    }

    public enum Identity: UInt8, Sendable {
        case `default` = 0x64
        case nothing = 0x6e
        case full = 0x66
        case index = 0x69
    }

    public var id: UInt32
    public var schema: String
    public var name: String
    public var identity: Identity
    public var columns: [Column]

    public init(id: UInt32, schema: String, name: String, identity: Identity, columns: [Column]) {
        self.id = id
        self.schema = schema
        self.name = name
        self.identity = identity
        self.columns = columns
    }
}

/// Where a row's columns stand in the message's bytes.
public struct Tuple: Equatable, Sendable {
    public var columns: Int
    public var bytes: Range<Int>

    @inlinable
    public init(columns: Int, bytes: Range<Int>) {
        self.columns = columns
        self.bytes = bytes
    }
}

public struct OldTuple: Equatable, Sendable {
    /// Only the columns of the replica identity have values; otherwise all have.
    public var isKeyOnly: Bool
    public var tuple: Tuple

    @inlinable
    public init(isKeyOnly: Bool, tuple: Tuple) {
        self.isKeyOnly = isKeyOnly
        self.tuple = tuple
    }
}

/// A message that is not as the protocol says.
public struct PgOutputError: Error, Equatable, Sendable, CustomStringConvertible {
    public enum Code: String, Sendable {
        case endOfMessage = "the message ends too early"
        case trailingBytes = "bytes follow the message's end"
        case unknownMessage = "a message of an unknown kind"
        case unknownTuple = "a row of an unknown kind"
        case unknownColumn = "a column value of an unknown kind"
        case badNumber = "a number that cannot be"
        case badText = "text that is not UTF-8"
        case outOfPlace = "a message where none of its kind can be"
    }

    public var code: Code
    public var offset: Int

    public init(_ code: Code, at offset: Int) {
        self.code = code
        self.offset = offset
    }

    public var description: String { "pgoutput: \(code.rawValue) (at byte \(offset))" }
}
