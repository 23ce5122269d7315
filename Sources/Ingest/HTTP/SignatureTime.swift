import Runtime

/// A moment as signatures write it: `20260131T235959Z`.
struct SignatureTime {
    let day: String
    let stamp: String

    init(wallMs: Int64) {
        let digits = CalendarTime(wallMs: wallMs).iso8601.filter { $0 != "-" && $0 != ":" }
        day = String(digits.prefix(8))
        stamp = String(digits.prefix(15)) + "Z"
    }
}
