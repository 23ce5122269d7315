import Bench
import Runtime
import System
import Wire

extension Command {
    static let bench = Command(
        name: "bench",
        summary: "measure a part or the whole of the system",
        operands: BenchRun.every.map(\.name).joined(separator: "|"),
        details: BenchRun.every.map {
            "  \($0.name.padded(to: 12))\($0.summary)"
        }
        .joined(separator: "\n"),
        options: Option.kafka + [
            Option.postgres,
            Option("target", .address, "load: the chat server", standard: "127.0.0.1:8080"),
            Option("token-key", .string("KEY"), "load: the chat server's HS256 key", isSecret: true),
            Option("process", .keyValue, "load: name=pid of a process whose CPU time counts"),
            Option("scenario", .choice(["saturation", "fan-out", "pairs"]), "load: which of the standard loads"),
            Option("chats", .integer(1...1_000_000), "load, storm: how many chats"),
            Option(
                "members", .integer(1...100_000),
                "load, import: members of each chat, load: each with one device; sockets: idle devices"),
            Option("senders", .integer(1...100_000), "load: members of each chat that send"),
            Option(
                "rate", .integer(1...10_000_000), "load, import: messages a second over all chats, at scheduled times"),
            Option("window", .integer(1...100_000), "load: messages of each chat under way, instead of a rate"),
            Option("text-bytes", .integer(1...10_000), "load: the size of a message's text"),
            Option("messages", .integer(1...1_000_000_000), "kafka, history, storm: how many; push: people to tell"),
            Option(
                "up", .integer(1...Int.max),
                "the process id of a fanout up: load counts its stages' CPU time, chaos strikes them"),
            Option("seed", .integer(0...Int.max), "chaos: where chance begins; a fresh one else"),
            Option(
                "storms", .integer(1...10_000),
                "chaos: how many, one behind the other, each of the seed after the last",
                standard: "1"),
            Option("spare", .string("NAME,…"), "chaos: processes that nothing happens to"),
            Option("rounds", .integer(1...1_000_000), "chaos: how many blows", standard: "10"),
            Option("duration", .duration, "how long to measure", standard: "10s"),
            Option("changes", .integer(1000...100_000_000), "cdc: row changes to catch up with", standard: "1000000"),
            Option("transaction-rows", .integer(1...100_000_000), "cdc: rows of the large transaction (as many)"),
            Option("binary", .flag, "cdc: values in binary"),
            Option(
                "memberships", .integer(1000...100_000_000), "restore: how many (10000000); import: how many (1000000)"),
            Option("json", .flag, "print JSON instead of a table"),
        ],
        run: { invocation in
            guard let name = invocation.operands.first, let bench = BenchRun.every.first(where: { $0.name == name })
            else {
                throw UsageError("expected one of \(BenchRun.every.map(\.name).joined(separator: ", "))")
            }
            return try bench.run(invocation)
        })
}

/// One thing that `fanout bench` measures.
struct BenchRun: Sendable {
    let name: String
    let summary: String
    let run: @Sendable (Invocation) throws -> ExitCode

    static let every: [BenchRun] = [
        all, load, storm, chaos, cdc, join, restore, importing, sockets, loop, kafka, broker, history, delivery, push,
        lag, json,
    ]

    private static func target(_ invocation: Invocation) throws -> LoadTarget {
        let options = invocation.options
        guard let place = options.address("target"),
            let address = try SocketAddress.resolve(host: place.host, port: Int(place.port)).first
        else { throw UsageError("--target is required: --target HOST:PORT") }
        return LoadTarget(
            address: address, postgres: try options.require("postgres"),
            tokens: invocation.tokens(Array(try options.require("token-key").utf8)))
    }

    static let chaos = BenchRun(
        name: "chaos", summary: "load while processes die at random, then a reckoning of every device"
    ) {
        invocation in
        let options = invocation.options
        var storm = ChaosRun.Options()
        storm.seed = options.integer("seed").map { UInt64($0) } ?? .random(in: 0...UInt64(Int.max))
        storm.rounds = options.integer("rounds") ?? 10
        guard let up = options.integer("up") else { throw UsageError("--up is required: the process id of fanout up") }
        storm.up = Int32(clamping: up)
        storm.spared = Set((options.string("spare") ?? "").split(separator: ",").map(String.init))
        CurrentProcess.raiseDescriptorLimit()
        var sum: ChaosReport?
        let count = options.integer("storms") ?? 1
        for _ in 0..<count {
            Output.standard("seed \(storm.seed)\n")
            let report = try ChaosRun(
                storm, target: target(invocation), kafka: invocation.kafka(clientID: "fanout-chaos"),
                names: invocation.names, log: invocation.log
            ).run()
            Output.standard(report.text)
            storm.seed += 1
            sum?.add(report)
            sum = sum ?? report
        }
        guard let sum else { return .failure }
        if count > 1 { Output.standard("\nall storms\n" + sum.text) }
        return sum.violations.isEmpty ? .success : .failure
    }

    static let load = BenchRun(name: "load", summary: "messages end to end, from socket to sockets") { invocation in
        let options = invocation.options
        let target = try target(invocation)
        var scenario =
            switch options.string("scenario") {
            case "saturation": Scenario.saturation
            case "pairs": Scenario.pairs
            default: Scenario.fanOut
            }
        if let chats = options.integer("chats") { scenario.chats = chats }
        if let members = options.integer("members") { scenario.membersPerChat = members }
        if let senders = options.integer("senders") { scenario.sendersPerChat = min(senders, scenario.membersPerChat) }
        if let rate = options.integer("rate") { scenario.pace = .rate(Double(rate)) }
        if let window = options.integer("window") { scenario.pace = .window(window) }
        if let bytes = options.integer("text-bytes") { scenario.textBytes = bytes }
        scenario.durationMs = options.durationMs("duration") ?? 10_000
        CurrentProcess.raiseDescriptorLimit()
        let named = options.keyValues("process").compactMap { name, id in Int32(id).map { (name: name, id: $0) } }
        let meter = ProcessMeter(named + ProcessMeter.stages(of: options.integer("up")))
        let report = try LoadRun.run(scenario, target: target, meter: meter)
        var json = JSONWriter()
        report.write(to: &json)
        Output.standard(options.flag("json") ? String(decoding: json.bytes, as: UTF8.self) + "\n" : report.text)
        return report.isWhole ? .success : .failure
    }

    static let storm = BenchRun(
        name: "storm", summary: "many devices cut off at once, and back at once with what they missed"
    ) { invocation in
        let options = invocation.options
        var storm = Storm.Options()
        if let chats = options.integer("chats") { storm.chats = chats }
        if let members = options.integer("members") { storm.membersPerChat = members }
        if let messages = options.integer("messages") { storm.messagesPerChat = messages }
        CurrentProcess.raiseDescriptorLimit()
        let report = try Storm(storm, target: target(invocation), log: invocation.log).run()
        var json = JSONWriter()
        report.write(to: &json)
        Output.standard(options.flag("json") ? String(decoding: json.bytes, as: UTF8.self) + "\n" : report.text)
        return report.lost == 0 && report.repeated == 0 ? .success : .failure
    }

    static let json = BenchRun(name: "json", summary: "reading and writing JSON") { invocation in
        let report = try JSONBenchmark.run(durationMs: invocation.options.durationMs("duration") ?? 10_000)
        Output.standard(report.text)
        return .success
    }
}
