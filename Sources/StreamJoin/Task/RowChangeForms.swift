import Wire

/// Remembers the forms in which row changes have come, so that the next one of the same form need not be parsed.
///
/// A writer of change envelopes writes thousands that differ in ids, digits and names alone. A form is the text of one
/// that was parsed, and for each of its bytes what may stand there in another record of the form:
/// - only this byte: the structure, the names of fields, and the values that decide what the record is;
/// - any digit, or any but zero where a number of several digits begins: so it stays a number of the same length;
/// - any character that needs no escape: the text of values that nobody here reads;
/// - anything: an id, whose reading checks it.
/// So a record that fits is well-formed where the first was and says the same, but for its ids and numbers, which stand
/// where they stood in the first. Comparing takes a word at a time; a tenth of what a parser needs. Whatever does not
/// fit is parsed: the parser alone says what a record means.
struct RowChangeForms: Sendable {
    private struct Form: Sendable {
        var change: RowChange
        var layout: RowChangeLayout
        /// Where its words begin.
        var start: Int
        /// How many records of this length in a row have not fitted.
        var misses = 0
    }

    /// Eight bytes of a form, the first in the lowest place, and which of them may be what. Each mask has whole bytes.
    struct Word: Sendable, BitwiseCopyable {
        var text: UInt64 = 0
        var ids: UInt64 = 0
        var digits: UInt64 = 0
        var leadingDigits: UInt64 = 0
        var characters: UInt64 = 0
    }

    /// One form for each length of a record: length and form determine one another mostly.
    private var forms: [Form?] = []
    private var words: [Word] = []

    /// Longer records are rare.
    static let lengthMax = 1024
    /// So many records of a length must not fit before another form takes the place.
    static let missesMax = 8

    /// What the record says, if it has the form of one that was learnt.
    mutating func find(_ value: Span<UInt8>) -> RowChange? {
        guard value.count < forms.count, let form = forms[value.count] else { return nil }
        guard fits(value, form.start), let change = form.layout.read(value, as: form.change) else {
            forms[value.count]?.misses = form.misses + 1
            return nil
        }
        if form.misses > 0 { forms[value.count]?.misses = 0 }
        return change
    }

    /// - Parameter change: what the parser has made of the record.
    mutating func learn(_ value: Span<UInt8>, _ change: RowChange) {
        guard value.count >= 8, value.count < Self.lengthMax else { return }
        if forms.isEmpty { forms = [Form?](repeating: nil, count: Self.lengthMax) }
        let known = forms[value.count]
        if let known, known.misses < Self.missesMax { return }
        guard let (layout, learnt) = RowChangeLayout.learn(value, change) else { return }
        let start = known?.start ?? words.count
        if known == nil { words += learnt } else { words.replaceSubrange(start..<start + learnt.count, with: learnt) }
        forms[value.count] = Form(change: change, layout: layout, start: start)
    }

    private func fits(_ value: Span<UInt8>, _ start: Int) -> Bool {
        let count = (value.count &+ 7) / 8
        let words = words.span.extracting(start..<start &+ count)
        var index = 0
        while index < count {
            // The last word overlaps the one before it.
            let at = min(index &* 8, value.count &- 8)
            let bytes = value.word(at: at)
            let word = words[index]
            let differing = bytes ^ word.text
            if differing != 0 {
                let digits = word.digits | word.leadingDigits
                let isForeign =
                    differing & ~(word.ids | digits | word.characters) | bytes.withoutDigits & digits
                    | bytes.zeroDigits & word.leadingDigits | bytes.withoutPlainCharacters & word.characters
                if isForeign != 0 { return false }
            }
            index &+= 1
        }
        return true
    }
}

extension Span<UInt8> {
    /// The eight bytes from there on, the first in the lowest place.
    @inline(__always)
    fileprivate func word(at index: Int) -> UInt64 {
        let bytes = extracting(index..<index &+ 8)
        return UInt64(bytes[0]) | UInt64(bytes[1]) << 8 | UInt64(bytes[2]) << 16 | UInt64(bytes[3]) << 24
            | UInt64(bytes[4]) << 32 | UInt64(bytes[5]) << 40 | UInt64(bytes[6]) << 48 | UInt64(bytes[7]) << 56
    }
}

extension UInt64 {
    @inline(__always)
    private static func all(_ byte: UInt64) -> UInt64 { byte &* 0x0101_0101_0101_0101 }

    /// The high bit of each byte that is no decimal digit.
    @inline(__always)
    fileprivate var withoutDigits: UInt64 {
        let digits = self ^ Self.all(0x30)
        return (((digits & Self.all(0x7f)) &+ Self.all(0x76)) | digits) & Self.all(0x80)
    }

    /// The high bit of each byte that is the digit zero.
    @inline(__always)
    fileprivate var zeroDigits: UInt64 {
        let others = self ^ Self.all(0x30)
        return ~(((others & Self.all(0x7f)) &+ Self.all(0x7f)) | others) & Self.all(0x80)
    }

    /// The high bit of each byte that cannot stand in a string as it is, or not alone: controls, quotes, backslashes, and
    /// whatever is not ASCII.
    @inline(__always)
    fileprivate var withoutPlainCharacters: UInt64 {
        let low = self & Self.all(0x7f)
        // No carries: each sum stays within its byte.
        let isControl = ~(low &+ Self.all(0x60))
        let isQuote = ~((low ^ Self.all(0x22)) &+ Self.all(0x7f))
        let isBackslash = ~((low ^ Self.all(0x5c)) &+ Self.all(0x7f))
        return (isControl | isQuote | isBackslash | self) & Self.all(0x80)
    }
}
