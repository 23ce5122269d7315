public import Wire

/// A parameter of a statement. All but text go with their type; text goes untyped, so the server takes it for whatever
/// the statement needs there.
public enum PostgresValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case int(Int64)
    case double(Double)
    case text(String)
    case bytes([UInt8])
    case uuid(UUID)
    /// Milliseconds since 1970, for a `timestamptz`.
    case timestampMs(Int64)
    case ints([Int64])
    case texts([String])
    case uuids([UUID])

    public static func id<Kind>(_ id: ID<Kind>) -> PostgresValue { .uuid(id.uuid) }
    public static func ids<Kind>(_ ids: some Sequence<ID<Kind>>) -> PostgresValue { .uuids(ids.map(\.uuid)) }
}

/// The numbers that Postgres' catalog gives to the types we write and read.
public enum PostgresType {
    public static let bool: UInt32 = 16
    public static let bytea: UInt32 = 17
    public static let int8: UInt32 = 20
    public static let int2: UInt32 = 21
    public static let int4: UInt32 = 23
    public static let text: UInt32 = 25
    public static let oid: UInt32 = 26
    public static let json: UInt32 = 114
    public static let float4: UInt32 = 700
    public static let float8: UInt32 = 701
    public static let date: UInt32 = 1082
    public static let timestamp: UInt32 = 1114
    public static let timestamptz: UInt32 = 1184
    public static let numeric: UInt32 = 1700
    public static let uuid: UInt32 = 2950
    public static let jsonb: UInt32 = 3802
    static let textArray: UInt32 = 1009
    static let int8Array: UInt32 = 1016
    static let uuidArray: UInt32 = 2951

    /// 2000-01-01 in milliseconds since 1970: where Postgres' clock starts.
    public static let epochMs: Int64 = 946_684_800_000
}

/// Parameters as libpq takes them: one buffer of values, and for each where it starts, how long it is and what.
struct EncodedParameters {
    var bytes: [UInt8] = []
    /// -1 stands for null.
    var offsets: [Int] = []
    var lengths: [Int32] = []
    var formats: [Int32] = []
    var types: [UInt32] = []

    init(_ values: [PostgresValue]) throws(PostgresError) {
        for value in values { try append(value) }
    }

    private mutating func append(_ value: PostgresValue) throws(PostgresError) {
        let start = bytes.count
        var type: UInt32 = 0
        var format: Int32 = 1
        switch value {
        case .null:
            offsets.append(-1)
            lengths.append(0)
            formats.append(0)
            types.append(0)
            return
        case .bool(let bool):
            type = PostgresType.bool
            bytes.append(bool ? 1 : 0)
        // Numbers go as text: a prepared statement may have made the parameter an int4 or a numeric, and takes the
        // digits for either.
        case .int(let int):
            (type, format) = (PostgresType.int8, 0)
            bytes.appendDecimal(int)
        case .double(let double):
            (type, format) = (PostgresType.float8, 0)
            bytes.append(contentsOf: "\(double)".utf8)
        case .text(let text):
            format = 0
            bytes.append(contentsOf: text.utf8)
            if bytes[start...].contains(0) {
                throw PostgresError(.badInput, "a text parameter has a zero byte, which Postgres cannot store")
            }
        case .bytes(let data):
            type = PostgresType.bytea
            bytes.append(contentsOf: data)
        case .uuid(let uuid):
            type = PostgresType.uuid
            uuid.appendBinary(to: &bytes)
        case .timestampMs(let ms):
            type = PostgresType.timestamptz
            bytes.appendBigEndian((ms - PostgresType.epochMs) * 1000)
        case .ints(let ints):
            type = PostgresType.int8Array
            bytes.appendArray(ints, of: PostgresType.int8) { $0.appendBigEndian($1) }
        case .texts(let texts):
            type = PostgresType.textArray
            bytes.appendArray(texts, of: PostgresType.text) { $0.append(contentsOf: $1.utf8) }
        case .uuids(let uuids):
            type = PostgresType.uuidArray
            bytes.appendArray(uuids, of: PostgresType.uuid) { $1.appendBinary(to: &$0) }
        }
        offsets.append(start)
        lengths.append(Int32(bytes.count - start))
        formats.append(format)
        types.append(type)
        // Text format is read up to a zero byte, whatever its length says.
        bytes.append(0)
    }
}

extension [UInt8] {
    /// One dimension, no nulls, lower bound 1.
    mutating func appendArray<Value>(
        _ elements: [Value], of type: UInt32, _ write: (inout [UInt8], Value) -> Void
    ) {
        appendBigEndian(Int32(elements.isEmpty ? 0 : 1))
        appendBigEndian(Int32(0))
        appendBigEndian(type)
        if elements.isEmpty { return }
        appendBigEndian(Int32(elements.count))
        appendBigEndian(Int32(1))
        for element in elements {
            let start = count
            appendBigEndian(Int32(0))
            write(&self, element)
            let length = UInt32(count - start - 4)
            for index in 0..<4 { self[start + index] = UInt8(truncatingIfNeeded: length >> UInt32(24 - index * 8)) }
        }
    }
}

extension Span<UInt8> {
    /// The whole span as one big-endian number of at most eight bytes, sign extended.
    @inlinable
    public var bigEndianInt: Int64 {
        guard count > 0 else { return 0 }
        var value = Int64(Int8(bitPattern: self[0]))
        for index in 1..<count { value = value << 8 | Int64(self[index]) }
        return value
    }
}
