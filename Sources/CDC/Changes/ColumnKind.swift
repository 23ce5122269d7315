internal import PostgresClient
internal import Wire

/// How a column's values are written in JSON. What JSON has no form for, and what readers would round, is text as
/// Postgres prints it; times are milliseconds since 1970, as everywhere in Fanout.
enum ColumnKind: UInt8, Sendable {
    case bool
    /// Integers, whose text is a JSON number already.
    case integer
    case float
    case timestamp
    case bytes
    /// Text that never needs an escape: ids, dates, exact numbers.
    case plain
    case text

    /// Whether a key has it in quotes, always.
    var isTextInKey: Bool {
        switch self {
        case .bool, .integer, .float: false
        case .timestamp, .bytes, .plain, .text: true
        }
    }

    init(type: UInt32) {
        switch type {
        case PostgresType.bool: self = .bool
        case PostgresType.int2, PostgresType.int4, PostgresType.int8, PostgresType.oid: self = .integer
        case PostgresType.float4, PostgresType.float8: self = .float
        case PostgresType.timestamp, PostgresType.timestamptz: self = .timestamp
        case PostgresType.bytea: self = .bytes
        case PostgresType.uuid, PostgresType.numeric, PostgresType.date: self = .plain
        default: self = .text
        }
    }
}

/// One column of one row: of what kind its value is, and where its bytes stand.
struct ColumnSlot {
    enum Kind: UInt8 { case null, unchanged, text, binary }

    var kind: Kind
    var start: Int
    var end: Int

    var range: Range<Int> { start..<end }
    var hasValue: Bool { kind == .text || kind == .binary }
}

enum ValueWriter {
    /// Debezium's word for a large value that the update did not touch and so did not log.
    static let unavailable = [UInt8](#""__debezium_unavailable_value""#.utf8)
    static let null = [UInt8]("null".utf8)
    static let yes = [UInt8]("true".utf8)
    static let no = [UInt8]("false".utf8)

    /// The largest integer that every JSON reader takes exactly; stands for `infinity`.
    static let endOfTimeMs: Int64 = 9_007_199_254_740_991

    /// Appends a value that came in text format.
    @inline(__always)
    static func append(text: Span<UInt8>, as kind: ColumnKind, to output: inout [UInt8]) {
        switch kind {
        case .plain:
            output.append(UInt8(ascii: "\""))
            output.append(text)
            output.append(UInt8(ascii: "\""))
        case .integer: output.append(text)
        case .bool: output.append(contentsOf: text.count > 0 && text[0] == UInt8(ascii: "t") ? yes : no)
        case .text: quote(text, to: &output)
        case .float:
            // NaN and the infinities are no JSON numbers.
            if text.count > 0, text[text.count - 1] &- 0x30 < 10 {
                output.append(text)
            } else {
                quote(text, to: &output)
            }
        case .timestamp:
            if let ms = Timestamp.milliseconds(text) {
                output.appendDecimal(ms)
            } else {
                quote(text, to: &output)
            }
        case .bytes: appendBase64(hex: text, to: &output)
        }
    }

    static func quote(_ text: Span<UInt8>, to output: inout [UInt8]) {
        output.append(UInt8(ascii: "\""))
        JSONWriter.appendEscaped(text, to: &output)
        output.append(UInt8(ascii: "\""))
    }

    /// Postgres' text form of bytes is `\x` and hex digits; JSON consumers expect base64.
    private static func appendBase64(hex text: Span<UInt8>, to output: inout [UInt8]) {
        guard text.count >= 2, text.count.isMultiple(of: 2), text[0] == UInt8(ascii: "\\"), text[1] == UInt8(ascii: "x")
        else { return quote(text, to: &output) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.count / 2)
        for index in stride(from: 2, to: text.count, by: 2) {
            bytes.append(digit(text[index]) << 4 | digit(text[index + 1]))
        }
        appendBase64(bytes.span, to: &output)
    }

    private static func digit(_ character: UInt8) -> UInt8 {
        let number = character &- 0x30
        return number < 10 ? number : (character | 0x20) &- 0x57
    }

    private static let alphabet = [UInt8]("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    static func appendBase64(_ bytes: Span<UInt8>, to output: inout [UInt8]) {
        output.append(UInt8(ascii: "\""))
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let rest = min(3, bytes.count - start)
            var group = UInt32(bytes[start]) << 16
            if rest > 1 { group |= UInt32(bytes[start + 1]) << 8 }
            if rest > 2 { group |= UInt32(bytes[start + 2]) }
            for place in 0..<4 {
                output.append(place <= rest ? alphabet[Int(group >> UInt32(18 - place * 6) & 63)] : UInt8(ascii: "="))
            }
        }
        output.append(UInt8(ascii: "\""))
    }
}
