import Runtime

/// The status as lines for people: aligned, no wider than they are told, colour only where it is wanted.
public struct LagTable: Sendable {
    public var showsPartitions = false
    public var usesColour = false
    /// Rows have the room of at least 40 columns; in less, they are cut.
    public var columns = 80

    public init() {}

    public func lines(_ status: LagStatus) -> [String] {
        var lines: [Line] = []
        let rows = showsPartitions ? status.rows : status.totals
        if let error = status.clusterError {
            lines += Self.wrap("no answer from the cluster: \(error)", to: columns, .danger)
        } else if rows.isEmpty {
            lines += Self.wrap("nothing to show: no group has committed anything", to: columns)
        } else {
            let shown = Column.fitting(columns, partitions: showsPartitions)
            lines.append(line(shown.map(\.title), shown))
            for row in rows { lines.append(line(shown.map { $0.text(row) }, shown, row.state)) }
            if rows.contains(where: \.isClamped) { lines.append(Line(text: "! a commit lies outside of the log")) }
        }
        for (slot, state) in status.slots { lines += Self.wrap(text(slot, state), to: columns, state) }
        if !status.instances.isEmpty {
            lines += Self.wrap("chat servers: " + status.instances.map(text).joined(separator: "; "), to: columns)
        }
        for missing in status.missing { lines += Self.wrap("missing: \(missing)", to: columns) }
        return lines.map { $0.rendered(columns: columns, usesColour: usesColour) }
    }

    private func text(_ slot: LagSample.Slot, _ state: LagState) -> String {
        "slot \(slot.name): \(state.rawValue), \(slot.words), at \(slot.confirmed), "
            + "keeps \(Self.bytes(slot.retainedBytes)) of WAL (\(slot.walStatus)"
            + (slot.safeBytes.map { ", \(Self.bytes($0)) left" } ?? "") + ")"
    }

    private func text(_ instance: LagSample.Instance) -> String {
        "\(instance.name) \(instance.connections) devices\(instance.isDraining ? ", draining" : "")"
            + (instance.heartbeatAgeMs > 5000
                ? ", silent for \(Self.time(Double(instance.heartbeatAgeMs) / 1000))" : "")
    }

    private func line(_ cells: [String], _ shown: [Column], _ state: LagState = .ok) -> Line {
        var text = ""
        for (cell, column) in zip(cells, shown) {
            // The end of a long group's or topic's name tells more than its beginning.
            let cut = column.keepsEnd ? String(cell.suffix(column.width)) : String(cell.prefix(column.width))
            let space = String(repeating: " ", count: column.width - cut.count)
            text += (text.isEmpty ? "" : " ") + (column.isLeft ? cut + space : space + cut)
        }
        while text.last == " " { text.removeLast() }
        return Line(text: text, state: state)
    }

    // MARK: Lines

    struct Line {
        var text: String
        var state = LagState.ok

        /// Cut first and coloured then, so that a code is neither counted nor cut.
        func rendered(columns: Int, usesColour: Bool) -> String {
            let cut = String(text.prefix(columns))
            guard usesColour, !cut.isEmpty else { return cut }
            switch state {
            case .ok: return cut
            case .behind, .empty: return "\u{1b}[33m\(cut)\u{1b}[0m"
            case .stalled, .danger: return "\u{1b}[31m\(cut)\u{1b}[0m"
            }
        }
    }

    /// Words in lines of at most this width; what continues a line stands a little to the right.
    static func wrap(_ text: String, to columns: Int, _ state: LagState = .ok) -> [Line] {
        var lines: [Line] = []
        var line = ""
        for word in text.split(separator: " ") {
            if !line.isEmpty, line.count + 1 + word.count > columns {
                lines.append(Line(text: line, state: state))
                line = columns > 20 ? "  " : ""
            }
            line += line.isEmpty || line == "  " ? String(word) : " " + word
        }
        lines.append(Line(text: line, state: state))
        return lines
    }

    // MARK: Figures

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

    static func count(_ number: Double) -> String {
        switch number {
        case ..<10_000: "\(Int(number.rounded()))"
        case ..<1_000_000: "\(Int(number / 1000))k"
        case ..<10_000_000: "\((number / 100_000).rounded() / 10)M"
        default: "\(Int(min(number, 1e15) / 1_000_000))M"
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
