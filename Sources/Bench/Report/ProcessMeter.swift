import System

/// CPU time and memory of the processes under load, from /proc.
public struct ProcessMeter: Sendable {
    public let processes: [(name: String, id: Int32)]

    public init(_ processes: [(name: String, id: Int32)]) {
        self.processes = processes
    }

    public struct Sample: Sendable {
        var cpuSeconds: [Double]
    }

    public func sample() -> Sample { Sample(cpuSeconds: processes.map { Self.cpuSeconds(of: $0.id) }) }

    /// By name: Postgres is many processes.
    public func difference(_ before: Sample, _ after: Sample) -> [(name: String, seconds: Double)] {
        var parts: [(name: String, seconds: Double)] = []
        for (index, process) in processes.enumerated() {
            let seconds = after.cpuSeconds[index] - before.cpuSeconds[index]
            if let known = parts.firstIndex(where: { $0.name == process.name }) {
                parts[known].seconds += seconds
            } else {
                parts.append((process.name, seconds))
            }
        }
        return parts
    }

    /// The processes of a `fanout up`, with those that serve Postgres' clients; none without one.
    public static func stages(of up: Int?) -> [(name: String, id: Int32)] {
        guard let up else { return [] }
        return Victims(parent: Int32(clamping: up)).processes().flatMap { process in
            process.family.map { (name: process.name, id: $0) }
        }
    }

    /// User and system time of a process and all its threads; 0 when there is no such process.
    static func cpuSeconds(of id: Int32) -> Double {
        guard let text = try? File.text(of: "/proc/\(id)/stat"), let end = text.lastIndex(of: ")") else { return 0 }
        // Behind the name, which may contain anything: fields 14 and 15 of the whole, in clock ticks of 10 ms.
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else { return 0 }
        return (user + system) / 100
    }

    /// Resident memory in bytes; 0 when there is no such process.
    public static func residentBytes(of id: Int32) -> Int {
        guard let text = try? File.text(of: "/proc/\(id)/statm") else { return 0 }
        let fields = text.split(separator: " ")
        return fields.count > 1 ? (Int(fields[1]) ?? 0) * 4096 : 0
    }
}
