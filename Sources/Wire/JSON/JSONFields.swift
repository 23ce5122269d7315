/// The field names that a decoder knows, found without making strings.
///
///     enum Field: String, CaseIterable { case chat, text, replyTo = "reply_to" }
///     static let fields = JSONFields<Field>()
///
/// A small open-addressing table over the names' lengths and ends; a hit is verified byte by byte.
public struct JSONFields<Field: RawRepresentable & CaseIterable & Sendable>: Sendable where Field.RawValue == String {
    @usableFromInline let names: [UInt8]
    @usableFromInline let slots: [Slot]

    @usableFromInline struct Slot: Sendable {
        @usableFromInline var name: Range<Int> = 0..<0
        @usableFromInline var field: Field?
    }

    public init() {
        let fields = Array(Field.allCases)
        var size = 8
        while size < fields.count * 4 { size *= 2 }
        var names: [UInt8] = []
        var slots = Array(repeating: Slot(), count: size)
        for field in fields {
            let name = Array(field.rawValue.utf8)
            precondition(!name.isEmpty, "a field needs a name")
            var slot = Self.hash(name.span) & (size - 1)
            while slots[slot].field != nil { slot = (slot + 1) & (size - 1) }
            slots[slot] = Slot(name: names.count..<names.count + name.count, field: field)
            names += name
        }
        self.names = names
        self.slots = slots
    }

    /// The field of this name, or `nil` for a name that the decoder does not know.
    @inlinable
    public func find(_ name: JSONString, in bytes: Span<UInt8>) -> Field? {
        if name.hasEscapes { return Field(rawValue: name.text(in: bytes)) }
        return find(bytes.extracting(name.range))
    }

    @inlinable
    public func find(_ name: Span<UInt8>) -> Field? {
        guard !name.isEmpty else { return nil }
        let mask = slots.count &- 1
        var slot = Self.hash(name) & mask
        while let field = slots[slot].field {
            if names.span.extracting(slots[slot].name).elementsEqual(name) { return field }
            slot = (slot &+ 1) & mask
        }
        return nil
    }

    @inlinable
    static func hash(_ name: Span<UInt8>) -> Int {
        let count = name.count
        return count &* 7 &+ Int(name[0]) &* 31 &+ Int(name[count &- 1]) &* 17 &+ Int(name[count / 2])
    }
}
