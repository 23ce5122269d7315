internal import PostgresClient
internal import Wire

/// Values in Postgres' binary formats, written as JSON just as their text would be.
enum BinaryValue {
    private static let varchar: UInt32 = 1043
    private static let char: UInt32 = 1042
    private static let name: UInt32 = 19

    /// Whether a column of this type can be written.
    static func isKnown(_ type: UInt32) -> Bool {
        switch type {
        case PostgresType.bool, PostgresType.int2, PostgresType.int4, PostgresType.int8, PostgresType.oid,
            PostgresType.float4, PostgresType.float8, PostgresType.timestamp, PostgresType.timestamptz,
            PostgresType.date, PostgresType.numeric, PostgresType.uuid, PostgresType.bytea, PostgresType.text, varchar,
            char, name, PostgresType.json, PostgresType.jsonb:
            true
        default: false
        }
    }

    /// Whether it may be in a key, where the bytes that a snapshot writes from text must be the same.
    static func isKnownInKey(_ type: UInt32) -> Bool {
        switch ColumnKind(type: type) {
        case .float, .timestamp: false
        default: isKnown(type)
        }
    }

    /// Appends a value. False when it is not in the type's binary form, or that is not known.
    static func append(_ bytes: Span<UInt8>, type: UInt32, to output: inout [UInt8]) -> Bool {
        switch (type, bytes.count) {
        case (PostgresType.bool, 1): output.append(contentsOf: bytes[0] != 0 ? ValueWriter.yes : ValueWriter.no)
        case (PostgresType.int2, 2), (PostgresType.int4, 4), (PostgresType.int8, 8):
            output.appendDecimal(bytes.bigEndianInt)
        case (PostgresType.oid, 4): output.appendDecimal(bytes.bigEndianInt & 0xffff_ffff)
        case (PostgresType.float4, 4):
            append(float: Float(bitPattern: UInt32(truncatingIfNeeded: bytes.bigEndianInt)), to: &output)
        case (PostgresType.float8, 8):
            append(float: Double(bitPattern: UInt64(bitPattern: bytes.bigEndianInt)), to: &output)
        case (PostgresType.timestamp, 8), (PostgresType.timestamptz, 8):
            output.appendDecimal(Timestamp.milliseconds(postgres: bytes.bigEndianInt))
        case (PostgresType.date, 4): quote(Timestamp.date(days: bytes.bigEndianInt), to: &output)
        case (PostgresType.numeric, 8...):
            guard let text = numeric(bytes) else { return false }
            quote(text, to: &output)
        case (PostgresType.uuid, 16):
            guard let uuid = UUID(binary: bytes) else { return false }
            output.append(UInt8(ascii: "\""))
            uuid.appendText(to: &output)
            output.append(UInt8(ascii: "\""))
        case (PostgresType.bytea, _): ValueWriter.appendBase64(bytes, to: &output)
        case (PostgresType.text, _), (varchar, _), (char, _), (name, _), (PostgresType.json, _):
            ValueWriter.quote(bytes, to: &output)
        // The binary form of jsonb is a version, 1, and the text.
        case (PostgresType.jsonb, 1...) where bytes[0] == 1: ValueWriter.quote(bytes.extracting(1...), to: &output)
        default: return false
        }
        return true
    }

    /// Appends a value as Postgres would print it: what a partition is chosen by, whatever form the value came in. False as
    /// in `append`.
    static func appendText(_ bytes: Span<UInt8>, type: UInt32, to output: inout [UInt8]) -> Bool {
        switch (type, bytes.count) {
        case (PostgresType.bool, 1): output.append(UInt8(ascii: bytes[0] != 0 ? "t" : "f"))
        case (PostgresType.text, _), (varchar, _), (char, _), (name, _), (PostgresType.json, _): output.append(bytes)
        case (PostgresType.jsonb, 1...): output.append(bytes.extracting(1...))
        default:
            var json: [UInt8] = []
            guard append(bytes, type: type, to: &json) else { return false }
            // Ids, dates and exact numbers stand in quotes, and have nothing to escape.
            let isQuoted = json.first == UInt8(ascii: "\"")
            output.append(contentsOf: isQuoted ? json[1..<json.count - 1] : json[...])
        }
        return true
    }

    private static func quote(_ text: String, to output: inout [UInt8]) {
        output.append(UInt8(ascii: "\""))
        output.append(contentsOf: text.utf8)
        output.append(UInt8(ascii: "\""))
    }

    private static func append<Number: BinaryFloatingPoint & LosslessStringConvertible>(
        float: Number, to output: inout [UInt8]
    ) {
        if float.isFinite {
            output.append(contentsOf: "\(float)".utf8)
        } else {
            quote(float.isNaN ? "NaN" : float > 0 ? "Infinity" : "-Infinity", to: &output)
        }
    }

    /// Four numbers of 16 bits, how many digits, the place of the first, the sign, how many decimals are shown, and then
    /// the digits: each of four decimal ones. Nil when the bytes contradict themselves.
    private static func numeric(_ bytes: Span<UInt8>) -> String? {
        func number(_ index: Int) -> Int { Int(bytes[2 * index]) << 8 | Int(bytes[2 * index + 1]) }
        let count = number(0)
        let weight = Int(Int16(truncatingIfNeeded: number(1)))
        let scale = number(3)
        guard bytes.count == 8 + 2 * count, scale <= 0x3fff else { return nil }
        switch number(2) {
        case 0xc000: return "NaN"
        case 0xd000: return "Infinity"
        case 0xf000: return "-Infinity"
        case 0, 0x4000: break
        default: return nil
        }
        func digits(_ index: Int) -> String? {
            guard (0..<count).contains(index) else { return "0000" }
            let value = number(4 + index)
            return value < 10_000 ? String(String(10_000 + value).dropFirst()) : nil
        }
        var text = ""
        for index in 0..<max(0, weight + 1) {
            guard let group = digits(index) else { return nil }
            text += group
        }
        text = String(text.drop { $0 == "0" })
        if text.isEmpty { text = "0" }
        var decimals = ""
        var index = weight + 1
        while decimals.utf8.count < scale {
            guard let group = digits(index) else { return nil }
            decimals += group
            index += 1
        }
        if scale > 0 { text += "." + decimals.prefix(scale) }
        return number(2) == 0x4000 ? "-" + text : text
    }
}
