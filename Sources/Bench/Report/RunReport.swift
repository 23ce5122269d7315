public import Runtime
public import Wire

/// What came of one scenario.
public struct RunReport: Sendable {
    public let scenario: Scenario
    public let seconds: Double
    public let sent: Int
    public let deliveries: Int
    public let cpuSeconds: [(name: String, seconds: Double)]
    public let endToEnd: Histogram.Snapshot
    public let acknowledgement: Histogram.Snapshot
    public let lost: Int
    public let repeats: Int
    public let outOfOrder: Int
    public let refused: [String: Int]
    public let unacknowledged: Int
    public let failure: String?

    public var deliveriesPerSecond: Double { Double(deliveries) / seconds }
    public var cpuTotal: Double { cpuSeconds.reduce(0) { $0 + $1.seconds } }
    public var deliveriesPerCPUSecond: Double { cpuTotal > 0 ? Double(deliveries) / cpuTotal : 0 }
    public var isWhole: Bool { lost == 0 && repeats == 0 && outOfOrder == 0 && failure == nil }

    public var text: String {
        func ms(_ us: Double) -> String { Self.rounded(us / 1000, 2) + " ms" }
        var lines = [
            scenario.name,
            "  \(scenario.chats) chats × \(scenario.membersPerChat) members, \(scenario.textBytes)-byte text, \(Self.rounded(seconds, 1)) s",
            "  sent            \(sent) (\(Self.rounded(Double(sent) / seconds, 0))/s)",
            "  deliveries      \(deliveries) (\(Self.rounded(deliveriesPerSecond, 0))/s, \(Self.rounded(deliveriesPerCPUSecond, 0)) a CPU-second)",
            "  end to end      p50 \(ms(endToEnd.quantileUs(0.5)))   p99 \(ms(endToEnd.quantileUs(0.99)))   p99.9 \(ms(endToEnd.quantileUs(0.999)))",
            "  acknowledged    p50 \(ms(acknowledgement.quantileUs(0.5)))   p99 \(ms(acknowledgement.quantileUs(0.99)))",
            "  lost \(lost)   repeated \(repeats)   out of order \(outOfOrder)   unacknowledged \(unacknowledged)",
        ]
        if !refused.isEmpty { lines.append("  refused         \(refused)") }
        if let failure { lines.append("  failed          \(failure)") }
        lines.append(
            "  CPU             "
                + cpuSeconds.map { "\($0.name) \(Self.rounded($0.seconds, 2))" }.joined(separator: "   ") + " s")
        return lines.joined(separator: "\n") + "\n"
    }

    public func write(to json: inout JSONWriter) {
        json.object {
            $0.field("scenario", scenario.name)
            $0.field("chats", scenario.chats)
            $0.field("members_per_chat", scenario.membersPerChat)
            $0.field("seconds", seconds)
            $0.field("sent", sent)
            $0.field("deliveries", deliveries)
            $0.field("deliveries_per_second", deliveriesPerSecond)
            $0.field("deliveries_per_cpu_second", deliveriesPerCPUSecond)
            $0.field("p50_ms", endToEnd.quantileUs(0.5) / 1000)
            $0.field("p99_ms", endToEnd.quantileUs(0.99) / 1000)
            $0.field("p999_ms", endToEnd.quantileUs(0.999) / 1000)
            $0.field("ack_p50_ms", acknowledgement.quantileUs(0.5) / 1000)
            $0.field("ack_p99_ms", acknowledgement.quantileUs(0.99) / 1000)
            $0.field("lost", lost)
            $0.field("repeated", repeats)
            $0.field("out_of_order", outOfOrder)
            $0.field("unacknowledged", unacknowledged)
            $0.name("cpu_seconds")
            $0.object { json in for part in cpuSeconds { json.field(part.name, part.seconds) } }
        }
    }

    static func rounded(_ number: Double, _ digits: Int) -> String {
        var scale = 1.0
        for _ in 0..<digits { scale *= 10 }
        let value = (number * scale).rounded() / scale
        return digits == 0 ? "\(Int(value))" : "\(value)"
    }
}
