/// Civil time (UTC) of a moment, without a library: for log lines, tables for people and partition names.
public struct CalendarTime: Equatable, Sendable {
    public let year: Int
    public let month: Int
    public let day: Int
    public let hour: Int
    public let minute: Int
    public let second: Int
    public let millisecond: Int

    public init(wallMs: Int64) {
        let days = Int(wallMs.flooredDivision(by: 86_400_000))
        let rest = Int(wallMs - Int64(days) * 86_400_000)
        millisecond = rest % 1000
        second = rest / 1000 % 60
        minute = rest / 60_000 % 60
        hour = rest / 3_600_000
        // Years are counted from March, so that the leap day ends one: eras of 400 years have equal lengths.
        let shifted = days + 719_468
        let era = Int(Int64(shifted).flooredDivision(by: 146_097))
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        day = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
        month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    }

    /// `2026-11-21`
    public var date: String { "\(year)-\(month.digits(2))-\(day.digits(2))" }
    /// `04:02:19.123`
    public var timeOfDay: String {
        "\(hour.digits(2)):\(minute.digits(2)):\(second.digits(2)).\(millisecond.digits(3))"
    }
    /// `2026-11-21T04:02:19.123Z`
    public var iso8601: String { "\(date)T\(timeOfDay)Z" }
}

extension Int {
    func digits(_ count: Int) -> String {
        let text = String(self)
        return text.utf8.count >= count ? text : String(repeating: "0", count: count - text.utf8.count) + text
    }
}

extension Int64 {
    func flooredDivision(by divisor: Int64) -> Int64 {
        let (quotient, remainder) = quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? quotient - 1 : quotient
    }
}
