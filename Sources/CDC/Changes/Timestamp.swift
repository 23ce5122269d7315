internal import PostgresClient
internal import Wire

/// Postgres' times as milliseconds since 1970.
enum Timestamp {
    /// From Postgres' own count: microseconds since 2000.
    static func milliseconds(postgres microseconds: Int64) -> Int64 {
        switch microseconds {
        case .max: ValueWriter.endOfTimeMs
        case .min: -ValueWriter.endOfTimeMs
        default: floorDivide(microseconds, 1000) + PostgresType.epochMs
        }
    }

    /// From the text that DateStyle ISO gives: `2026-11-21 04:03:11.123456+00`, `infinity`, `0044-03-15 00:00:00 BC`.
    /// `nil` when it is something else.
    static func milliseconds(_ text: Span<UInt8>) -> Int64? {
        if text.elementsEqual("infinity") { return ValueWriter.endOfTimeMs }
        if text.elementsEqual("-infinity") { return -ValueWriter.endOfTimeMs }
        var parser = Parser(text)
        guard var year = parser.number(), parser.skip("-"), let month = parser.number(), (1...12).contains(month),
            parser.skip("-"), let day = parser.number(), (1...31).contains(day), parser.skip(" "),
            let hour = parser.number(), hour <= 24, parser.skip(":"), let minute = parser.number(), minute < 60,
            parser.skip(":"), let second = parser.number(), second <= 60
        else { return nil }
        var milliseconds: Int64 = 0
        if parser.skip(".") {
            var scale: Int64 = 100
            while let digit = parser.digit() {
                milliseconds += digit * scale
                scale /= 10
            }
        }
        var offset: Int64 = 0
        if let sign = parser.sign() {
            guard let hours = parser.number() else { return nil }
            var seconds = hours * 3600
            if parser.skip(":"), let minutes = parser.number() { seconds += minutes * 60 }
            if parser.skip(":"), let rest = parser.number() { seconds += rest }
            offset = sign * seconds
        }
        if parser.skip(" ") {
            guard parser.skip("B"), parser.skip("C") else { return nil }
            year = 1 - year
        }
        guard parser.isAtEnd else { return nil }
        let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset
        return seconds * 1000 + milliseconds
    }

    /// Days since 1970-01-01 in the Gregorian calendar, for any year: counted in eras of 400 years that start in March.
    static func days(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
        let year = month <= 2 ? year - 1 : year
        let era = floorDivide(year, 400)
        let yearOfEra = year - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        return era * 146_097 + dayOfEra - 719_468
    }

    /// A date as Postgres prints it, from its own count: days since 2000.
    static func date(days: Int64) -> String {
        if days == Int64(Int32.max) { return "infinity" }
        if days == Int64(Int32.min) { return "-infinity" }
        let shifted = days + PostgresType.epochMs / 86_400_000 + 719_468
        let era = floorDivide(shifted, 146_097)
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        func padded(_ number: Int64, _ width: Int) -> String {
            let text = String(number)
            return String(repeating: "0", count: max(0, width - text.utf8.count)) + text
        }
        let shown = padded(year > 0 ? year : 1 - year, 4)
        return "\(shown)-\(padded(month, 2))-\(padded(day, 2))" + (year > 0 ? "" : " BC")
    }

    private static func floorDivide(_ value: Int64, _ divisor: Int64) -> Int64 {
        value >= 0 ? value / divisor : -((divisor - 1 - value) / divisor)
    }

    private struct Parser: ~Escapable {
        let text: Span<UInt8>
        var offset = 0

        @_lifetime(copy text)
        init(_ text: Span<UInt8>) { self.text = text }

        var isAtEnd: Bool { offset == text.count }

        @_lifetime(self: copy self)
        mutating func digit() -> Int64? {
            guard offset < text.count, text[offset] &- 0x30 < 10 else { return nil }
            defer { offset += 1 }
            return Int64(text[offset] &- 0x30)
        }

        @_lifetime(self: copy self)
        mutating func number() -> Int64? {
            guard var value = digit() else { return nil }
            var count = 1
            while count < 9, let next = digit() {
                value = value * 10 + next
                count += 1
            }
            return value
        }

        @_lifetime(self: copy self)
        mutating func skip(_ character: Unicode.Scalar) -> Bool {
            guard offset < text.count, text[offset] == UInt8(truncatingIfNeeded: character.value) else { return false }
            offset += 1
            return true
        }

        @_lifetime(self: copy self)
        mutating func sign() -> Int64? {
            if skip("+") { return 1 }
            if skip("-") { return -1 }
            return nil
        }
    }
}
