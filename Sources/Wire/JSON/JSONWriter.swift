/// Writes JSON text straight into a byte array, minding the commas.
///
///     var json = JSONWriter()
///     json.object {
///         $0.field("chat", chat)
///         $0.field("text", raw: bytes.extracting(text.quotedRange))
///     }
public struct JSONWriter: Sendable {
    public var bytes: [UInt8]
    @usableFromInline var needsComma = false

    @inlinable
    public init(reusing bytes: consuming [UInt8] = []) {
        self.bytes = bytes
    }

    /// Begins another value after the ones already written, keeping the storage.
    @inlinable
    public mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        needsComma = false
    }

    /// What follows is a value of its own, behind whatever else is in `bytes`.
    @inlinable
    public mutating func beginValue() { needsComma = false }

    // MARK: Containers

    @inlinable
    public mutating func beginObject() { open(UInt8(ascii: "{")) }
    @inlinable
    public mutating func endObject() { close(UInt8(ascii: "}")) }
    @inlinable
    public mutating func beginArray() { open(UInt8(ascii: "[")) }
    @inlinable
    public mutating func endArray() { close(UInt8(ascii: "]")) }

    @inlinable
    public mutating func object<E>(_ body: (inout JSONWriter) throws(E) -> Void) throws(E) {
        beginObject()
        try body(&self)
        endObject()
    }

    @inlinable
    public mutating func array<E>(_ body: (inout JSONWriter) throws(E) -> Void) throws(E) {
        beginArray()
        try body(&self)
        endArray()
    }

    /// A field's name. It is written as it stands: names are ours and need no escaping.
    @inlinable
    public mutating func name(_ name: String) {
        separate()
        bytes.append(UInt8(ascii: "\""))
        bytes.append(contentsOf: name.utf8)
        bytes.append(UInt8(ascii: "\""))
        bytes.append(UInt8(ascii: ":"))
        needsComma = false
    }

    // MARK: Values

    public mutating func value(_ text: String) {
        var text = text
        text.makeContiguousUTF8()
        value(utf8: text.utf8.span)
    }

    /// Text that is known to be UTF-8; quotes, backslashes and control characters are escaped.
    public mutating func value(utf8 text: Span<UInt8>) {
        separate()
        bytes.append(UInt8(ascii: "\""))
        Self.appendEscaped(text, to: &bytes)
        bytes.append(UInt8(ascii: "\""))
        needsComma = true
    }

    @inlinable
    public mutating func value(_ number: some FixedWidthInteger) {
        separate()
        bytes.appendDecimal(number)
        needsComma = true
    }

    /// A number; what JSON cannot express (infinities, NaN) becomes null.
    public mutating func value(_ number: Double) {
        guard number.isFinite else { return null() }
        separate()
        bytes.append(contentsOf: number.description.utf8)
        needsComma = true
    }

    @inlinable
    public mutating func value(_ bool: Bool) {
        separate()
        bytes.append(contentsOf: (bool ? "true" : "false").utf8)
        needsComma = true
    }

    @inlinable
    public mutating func value(_ uuid: UUID) {
        separate()
        bytes.append(UInt8(ascii: "\""))
        uuid.appendText(to: &bytes)
        bytes.append(UInt8(ascii: "\""))
        needsComma = true
    }

    @inlinable
    public mutating func value<Kind>(_ id: ID<Kind>) { value(id.uuid) }

    @inlinable
    public mutating func null() {
        separate()
        bytes.append(contentsOf: "null".utf8)
        needsComma = true
    }

    /// A value that is JSON already, spliced through untouched.
    @inlinable
    public mutating func raw(_ json: Span<UInt8>) {
        separate()
        bytes.append(json)
        needsComma = true
    }

    // MARK: Fields

    public mutating func field(_ name: String, _ text: String) {
        self.name(name)
        value(text)
    }
    @inlinable
    public mutating func field(_ name: String, _ number: some FixedWidthInteger) {
        self.name(name)
        value(number)
    }
    public mutating func field(_ name: String, _ number: Double) {
        self.name(name)
        value(number)
    }
    @inlinable
    public mutating func field(_ name: String, _ bool: Bool) {
        self.name(name)
        value(bool)
    }
    @inlinable
    public mutating func field(_ name: String, _ uuid: UUID) {
        self.name(name)
        value(uuid)
    }
    @inlinable
    public mutating func field<Kind>(_ name: String, _ id: ID<Kind>) {
        self.name(name)
        value(id)
    }
    @inlinable
    public mutating func field(_ name: String, raw json: Span<UInt8>) {
        self.name(name)
        raw(json)
    }
    @inlinable
    public mutating func field(_ name: String, utf8 text: Span<UInt8>) {
        self.name(name)
        value(utf8: text)
    }
    @inlinable
    public mutating func nullField(_ name: String) {
        self.name(name)
        null()
    }

    // MARK: Pieces

    @inlinable
    mutating func separate() {
        if needsComma { bytes.append(UInt8(ascii: ",")) }
    }

    @inlinable
    mutating func open(_ byte: UInt8) {
        separate()
        bytes.append(byte)
        needsComma = false
    }

    @inlinable
    mutating func close(_ byte: UInt8) {
        bytes.append(byte)
        needsComma = true
    }

    /// Appends text in runs: what needs no escape is copied in one piece.
    public static func appendEscaped(_ text: Span<UInt8>, to bytes: inout [UInt8]) {
        var start = 0
        for index in text.indices {
            let byte = text[index]
            guard byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") else { continue }
            bytes.append(text.extracting(start..<index))
            start = index + 1
            bytes.append(UInt8(ascii: "\\"))
            switch byte {
            case 0x0a: bytes.append(UInt8(ascii: "n"))
            case 0x0d: bytes.append(UInt8(ascii: "r"))
            case 0x09: bytes.append(UInt8(ascii: "t"))
            case UInt8(ascii: "\""), UInt8(ascii: "\\"): bytes.append(byte)
            default:
                bytes.append(contentsOf: "u00".utf8)
                bytes.append(byte < 0x10 ? 0x30 : 0x31)
                bytes.append(byte & 0xf < 10 ? (byte & 0xf) + 0x30 : (byte & 0xf) + 0x57)
            }
        }
        bytes.append(text.extracting(start..<text.count))
    }
}
