import Runtime

/// The full-screen view: the table, and a small graph of each row's lag over the last minutes. Pure: statuses in, a
/// screen out.
public struct LagWatch: Sendable {
    private var history: [String: [Int64]] = [:]
    private static let kept = 120

    public init() {}

    public mutating func add(_ status: LagStatus) {
        for row in status.totals {
            history[key(row), default: []].append(row.messages)
            if history[key(row), default: []].count > Self.kept { history[key(row)]?.removeFirst() }
        }
    }

    /// Exactly as many lines as the terminal has, none longer than it is wide.
    public func screen(_ status: LagStatus, table: LagTable, columns: Int, rows: Int) -> [String] {
        var lines = ["fanout lag   \(CalendarTime(wallMs: status.takenMs).timeOfDay.prefix(8)) UTC   q quits"]
        lines += table.lines(status)
        lines.append("")
        for row in status.totals {
            let name = "\(row.group) \(row.topic)"
            let room = max(0, columns - 36)
            let label = String(name.prefix(34))
            lines.append(
                label + String(repeating: " ", count: 35 - label.count)
                    + Self.graph(history[key(row)] ?? [], width: room))
        }
        if lines.count > rows { lines = Array(lines.prefix(max(0, rows - 1))) + ["…"] }
        while lines.count < rows { lines.append("") }
        // Colour codes take no room on the screen; plain lines are cut to its width.
        return lines.prefix(rows).map { $0.utf8.first == 0x1b ? $0 : String($0.prefix(columns)) }
    }

    /// The last values as bars between nothing and their greatest.
    static func graph(_ values: [Int64], width: Int) -> String {
        let bars = Array("▁▂▃▄▅▆▇█")
        let shown = values.suffix(width)
        guard let greatest = shown.max() else { return "" }
        return String(shown.map { greatest == 0 ? bars[0] : bars[Int($0 * 7 / greatest)] })
    }

    private func key(_ row: LagRow) -> String { row.group + "\u{0}" + row.topic }
}
