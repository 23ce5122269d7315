import Wire

/// Where in a record's text the values stand that differ from one record of its form to the next.
struct RowChangeLayout: Sendable {
    private var chat: Int?
    private var user: Int?
    private var metaVersion: Range<Int>?
    private var lsn: Range<Int>?
    private var transaction: Range<Int>?

    /// What another record of the form says: the same, with ids and numbers of its own.
    @inline(__always)
    func read(_ value: Span<UInt8>, as known: RowChange) -> RowChange? {
        guard let chat, let chatID = ChatID(text: value.extracting(chat..<chat &+ UUID.textCount)) else { return nil }
        var change = known
        if let lsn { change.lsn = Self.number(value, lsn) }
        if let transaction { change.transaction = Self.number(value, transaction) }
        switch known.content {
        case .member(var member, let mayBeUnchanged):
            guard let user, let userID = UserID(text: value.extracting(user..<user &+ UUID.textCount)) else {
                return nil
            }
            member.chat = chatID
            member.user = userID
            change.content = .member(member, mayBeUnchanged: mayBeUnchanged)
        case .chat(_, let version, let isSnapshot):
            change.content = .chat(
                chatID, metaVersion: metaVersion.map { Self.number(value, $0) } ?? version, isSnapshot: isSnapshot)
        case .chatDeleted: change.content = .chatDeleted(chatID)
        }
        return change
    }

    /// At most 18 digits, and nothing else: so it has been learnt, and compared.
    @inline(__always)
    private static func number(_ value: Span<UInt8>, _ range: Range<Int>) -> Int64 {
        var number: Int64 = 0
        let digits = value.extracting(range)
        for index in digits.indices { number = number &* 10 &+ Int64(digits[index] &- 0x30) }
        return number
    }

    // MARK: Learning

    /// Walks a record that the parser has accepted. `nil` where it says something twice, or in a way that a glance at the
    /// same place in another record could misread.
    static func learn(_ value: Span<UInt8>, _ change: RowChange) -> (RowChangeLayout, [RowChangeForms.Word])? {
        var learner = Learner(value.count)
        do throws(JSONError) {
            guard try learner.walk(value, change) else { return nil }
        } catch {
            return nil
        }
        return (learner.layout, learner.words(of: value))
    }

    private struct Learner {
        enum Place { case fixed, id, digit, leadingDigit, character }

        var layout = RowChangeLayout()
        private var places: [Place]

        init(_ count: Int) {
            places = Array(repeating: .fixed, count: count)
        }

        func words(of value: Span<UInt8>) -> [RowChangeForms.Word] {
            (0..<(value.count + 7) / 8).map { index in
                let start = min(index * 8, value.count - 8)
                var word = RowChangeForms.Word()
                for byte in 0..<8 {
                    let mask = UInt64(0xff) << UInt64(byte * 8)
                    word.text |= UInt64(value[start + byte]) << UInt64(byte * 8)
                    switch places[start + byte] {
                    case .fixed: break
                    case .id: word.ids |= mask
                    case .digit: word.digits |= mask
                    case .leadingDigit: word.leadingDigits |= mask
                    case .character: word.characters |= mask
                    }
                }
                return word
            }
        }

        mutating func walk(_ value: Span<UInt8>, _ change: RowChange) throws(JSONError) -> Bool {
            var isMember = false
            if case .member = change.content { isMember = true }
            var isDeletion = false
            switch change.content {
            case .member(let member, _): isDeletion = member.role == nil
            case .chat: break
            case .chatDeleted: isDeletion = true
            }
            var seen: Set<String> = []
            var reader = JSONReader(value)
            try reader.beginObject()
            while let name = try reader.nextField() {
                let field = name.text(in: value)
                guard !name.hasEscapes, seen.insert(field).inserted else { return false }
                switch field {
                case "op": try reader.skipValue()
                case "before", "after":
                    guard (field == "before") == isDeletion else {
                        try reader.skipValue()
                        continue
                    }
                    guard try walkRow(&reader, value, isMember: isMember) else { return false }
                case "source": guard try walkSource(&reader, value) else { return false }
                default: try open(&reader, value)
                }
            }
            return true
        }

        private mutating func walkRow(
            _ reader: inout JSONReader, _ value: Span<UInt8>, isMember: Bool
        ) throws(JSONError) -> Bool {
            var seen: Set<String> = []
            try reader.beginObject()
            while let name = try reader.nextField() {
                let field = name.text(in: value)
                guard !name.hasEscapes, seen.insert(field).inserted else { return false }
                switch field {
                case "chat_id":
                    layout.chat = try id(&reader, value)
                    if layout.chat == nil { return false }
                case "user_id" where isMember:
                    layout.user = try id(&reader, value)
                    if layout.user == nil { return false }
                case "role" where isMember: try reader.skipValue()
                case "meta_version" where !isMember:
                    guard let digits = try number(&reader, value) else { return false }
                    layout.metaVersion = digits
                default: try open(&reader, value)
                }
            }
            return true
        }

        private mutating func walkSource(_ reader: inout JSONReader, _ value: Span<UInt8>) throws(JSONError) -> Bool {
            var seen: Set<String> = []
            try reader.beginObject()
            while let name = try reader.nextField() {
                let field = name.text(in: value)
                guard !name.hasEscapes, seen.insert(field).inserted else { return false }
                switch field {
                case "table", "again": try reader.skipValue()
                case "lsn", "txId":
                    if try reader.readNull() { continue }
                    guard let digits = try number(&reader, value) else { return false }
                    if field == "lsn" { layout.lsn = digits } else { layout.transaction = digits }
                default: try open(&reader, value)
                }
            }
            return true
        }

        private mutating func id(_ reader: inout JSONReader, _ value: Span<UInt8>) throws(JSONError) -> Int? {
            let string = try reader.readString()
            guard !string.hasEscapes, string.range.count == UUID.textCount else { return nil }
            for index in string.range { places[index] = .id }
            return string.range.lowerBound
        }

        /// A whole number that cannot overflow whatever its digits are. `null` for one is another form.
        private mutating func number(
            _ reader: inout JSONReader, _ value: Span<UInt8>
        ) throws(JSONError) -> Range<Int>? {
            guard try reader.peek() == .number else { return nil }
            let range = try reader.skipValue()
            guard range.count <= 18 else { return nil }
            for index in range where value[index] &- 0x30 >= 10 { return nil }
            markDigits(range, value)
            return range
        }

        /// A value that nobody reads: its text may be any other of the same length.
        private mutating func open(_ reader: inout JSONReader, _ value: Span<UInt8>) throws(JSONError) {
            switch try reader.peek() {
            case .string:
                let string = try reader.readString()
                if !string.hasEscapes { markCharacters(string.range, value) }
            case .number: markDigits(try reader.skipValue(), value)
            default: try reader.skipValue()
            }
        }

        /// Only what is plain may be replaced by what is plain: half a character of two bytes must not.
        private mutating func markCharacters(_ range: Range<Int>, _ value: Span<UInt8>) {
            for index in range where value[index] < 0x80 { places[index] = .character }
        }

        /// The signs in a number stay where they are, so its digits stay as many.
        private mutating func markDigits(_ number: Range<Int>, _ value: Span<UInt8>) {
            func isDigit(_ index: Int) -> Bool { number.contains(index) && value[index] &- 0x30 < 10 }
            let first = value[number.lowerBound] == UInt8(ascii: "-") ? number.lowerBound + 1 : number.lowerBound
            for index in number where isDigit(index) {
                places[index] = index == first && isDigit(index + 1) ? .leadingDigit : .digit
            }
        }
    }
}
