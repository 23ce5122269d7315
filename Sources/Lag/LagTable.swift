import Runtime

/// The status as lines for people: aligned, at most 80 columns, colour only where it is wanted.
public struct LagTable: Sendable {
    public var showsPartitions = false
    public var usesColour = false

    public init() {}

    public func lines(_ status: LagStatus) -> [String] {
        var lines: [String] = []
        let rows = showsPartitions ? status.rows : status.totals
        // 62 columns are the other cells and the spaces between.
        let width = 80 - 62
        lines.append(
            line(
                ["GROUP", "TOPIC", "WAITING", "BEHIND", "IN/s", "OUT/s", "LEFT", "STATE"], nameWidth: width))
        for row in rows {
            lines.append(
                coloured(
                    line(
                        [
                            String(row.group.suffix(15)), String(name(row).suffix(width)),
                            count(Double(row.messages)) + (row.isClamped ? "!" : ""), row.seconds.map(Self.time) ?? "?",
                            row.rateIn.map(count) ?? "", row.rateOut.map(count) ?? "", left(row), row.state.rawValue,
                        ], nameWidth: width), row.state))
        }
        if rows.isEmpty { lines.append("nothing to show: no group has committed anything") }
        for (slot, state) in status.slots {
            let safe = slot.safeBytes.map { ", \(Self.bytes($0)) left" } ?? ""
            lines.append(
                coloured(
                    "slot \(slot.name): \(slot.isActive ? "active" : "NOT ACTIVE") at \(slot.confirmed), "
                        + "keeps \(Self.bytes(slot.retainedBytes)) of WAL (\(slot.walStatus)\(safe))"
                        + (slot.behindSeconds.map { ", \(Self.time($0)) behind" } ?? "") + "  \(state.rawValue)", state)
            )
        }
        if !status.instances.isEmpty {
            lines.append(
                "chat servers: "
                    + status.instances.map {
                        "\($0.name) \($0.connections) devices\($0.isDraining ? ", draining" : "")"
                            + ($0.heartbeatAgeMs > 5000
                                ? ", silent for \(Self.time(Double($0.heartbeatAgeMs) / 1000))" : "")
                    }.joined(separator: "; "))
        }
        for line in status.missing { lines.append("missing: \(line)") }
        if rows.contains(where: \.isClamped) { lines.append("! a commit lies outside of the log") }
        return lines
    }

    private func name(_ row: LagRow) -> String { row.partition.map { "\(row.topic)/\($0)" } ?? row.topic }

    private func left(_ row: LagRow) -> String {
        guard row.messages > 0, row.rateIn != nil else { return "" }
        return row.catchUpSeconds.map(Self.time) ?? "never"
    }

    private func line(_ cells: [String], nameWidth: Int) -> String {
        let widths = [15, nameWidth, 8, 7, 6, 6, 6, 7]
        return zip(cells, widths).enumerated().map { index, cell in
            let text = String(cell.0.prefix(cell.1))
            let space = String(repeating: " ", count: cell.1 - text.count)
            return index < 2 || index == 7 ? text + space : space + text
        }.joined(separator: " ").trimmedEnd
    }

    private func coloured(_ line: String, _ state: LagState) -> String {
        guard usesColour else { return line }
        switch state {
        case .ok: return line
        case .behind, .empty: return "\u{1b}[33m\(line)\u{1b}[0m"
        case .stalled, .danger: return "\u{1b}[31m\(line)\u{1b}[0m"
        }
    }

    /// `0.4s`, `12s`, `3m`, `2h`, `5d`
    static func time(_ seconds: Double) -> String {
        switch seconds {
        case 0: "0"
        case ..<10: "\((seconds * 10).rounded() / 10)s"
        case ..<100: "\(Int(seconds))s"
        case ..<6000: "\(Int(seconds / 60))m"
        case ..<360_000: "\(Int(seconds / 3600))h"
        default: "\(Int(min(seconds / 86_400, 99_999)))d"
        }
    }

    private func count(_ number: Double) -> String {
        switch number {
        case ..<10_000: "\(Int(number.rounded()))"
        case ..<1_000_000: "\(Int(number / 1000))k"
        case ..<10_000_000: "\((number / 100_000).rounded() / 10)M"
        default: "\(Int(number / 1_000_000))M"
        }
    }

    static func bytes(_ number: Int64) -> String {
        switch number {
        case ..<10_240: "\(number) B"
        case ..<(10 << 20): "\(number >> 10) KiB"
        case ..<(10 << 30): "\(number >> 20) MiB"
        default: "\(number >> 30) GiB"
        }
    }
}

extension String {
    fileprivate var trimmedEnd: String {
        var text = Substring(self)
        while text.last == " " { text.removeLast() }
        return String(text)
    }
}
