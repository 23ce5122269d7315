import Runtime

/// The full-screen view: the table, and a small graph of each row's lag over the last minutes. Pure: statuses in, a
/// screen out.
public struct LagWatch: Sendable {
    private var history: [String: [Int64]] = [:]
    private static let kept = 240

    public init() {}

    public mutating func add(_ status: LagStatus) {
        guard status.clusterError == nil else { return }
        for row in status.totals {
            history[key(row), default: []].append(row.messages)
            if history[key(row), default: []].count > Self.kept { history[key(row)]?.removeFirst() }
        }
        // A group or topic that is gone is not shown again.
        let shown = Set(status.totals.map(key))
        history = history.filter { shown.contains($0.key) }
    }

    /// Exactly as many lines as the terminal has, none longer than it is wide, colours not counted.
    public func screen(_ status: LagStatus, table: LagTable, columns: Int, rows: Int) -> [String] {
        var table = table
        table.columns = columns
        let time = CalendarTime(wallMs: status.takenMs).timeOfDay.prefix(8)
        var lines = [String("fanout lag   \(time) UTC   q quits".prefix(columns))]
        lines += table.lines(status)
        lines.append("")
        let nameWidth = min(35, columns / 2)
        for row in status.totals {
            let label = "\(row.group) \(row.topic)".prefix(max(0, nameWidth - 1))
            lines.append(
                label + String(repeating: " ", count: nameWidth - label.count)
                    + Self.graph(history[key(row)] ?? [], width: columns - nameWidth))
        }
        if lines.count > rows { lines = Array(lines.prefix(max(0, rows - 1))) + ["…"] }
        while lines.count < rows { lines.append("") }
        return Array(lines.prefix(rows))
    }

    /// The last values as bars between nothing and their greatest.
    static func graph(_ values: [Int64], width: Int) -> String {
        let bars = Array("▁▂▃▄▅▆▇█")
        let shown = values.suffix(max(0, width))
        guard let greatest = shown.max() else { return "" }
        return String(shown.map { greatest == 0 ? bars[0] : bars[Int(Double($0) * 7 / Double(greatest))] })
    }

    private func key(_ row: LagRow) -> String { row.group + "\u{0}" + row.topic }
}
