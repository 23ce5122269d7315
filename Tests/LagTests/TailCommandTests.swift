import Foundation
import KafkaClient
import Lag
import TestSupport
import Testing
import Wire

/// `fanout tail` and `fanout topics` at a real log.
@Suite struct TailCommandTests {
    private let stage: Stage

    init() throws { stage = try Stage(partitions: 3) }

    private func tail(_ arguments: [String], count: Int) throws -> [String] {
        let (status, text) = try FanoutProcess.run(["tail"] + arguments + stage.options + ["--count", "\(count)"])
        #expect(status == 0, "\(text)")
        return text.split(separator: "\n").map(String.init)
    }

    @Test func `from the beginning, from an offset, and from a time: everything from there and nothing before`() throws
    {
        let topic = stage.names[.messages]
        let times = try (0..<4).flatMap { _ in
            defer { pace(microseconds: 5000) }
            return try stage.write(1, to: topic, partition: 1)
        }
        #expect(
            try tail(["messages", "--from", "beginning"], count: 4).map { $0.prefix(4) } == [
                "1/0 ", "1/1 ", "1/2 ", "1/3 ",
            ])
        #expect(try tail(["chat.messages", "--from", "2"], count: 2).map { $0.prefix(4) } == ["1/2 ", "1/3 "])
        #expect(try tail(["messages", "--from", "\(times[3])"], count: 1).map { $0.prefix(4) } == ["1/3 "])
        #expect(try tail(["messages", "--from", "10m"], count: 4).count == 4)
    }

    @Test func `from now on, what comes is shown when it comes, and SIGTERM ends it well`() throws {
        let process = try FanoutProcess(["tail", "messages", "--json"] + stage.options)
        // Where "now" is, is settled once it has asked: so something is written until it shows.
        var shown = false
        for _ in 0..<200 where !shown {
            try stage.write(1, to: stage.names[.messages])
            shown = eventually(seconds: 0.1) { process.text.contains("{}") }
        }
        #expect(shown, "\(process.text)")
        #expect(process.terminate() == 0)
    }

    @Test func `a chat is read from its partition only, so that others cost nothing`() throws {
        let chat = ChatID(UUID(high: 7, low: 7))
        let place = chat.partition(count: 3)
        let producer = try Producer(stage.configuration)
        let topic = try producer.topic(stage.names[.messages])
        for partition in Int32(0)..<3 {
            let (key, value) = (Array(chat.description.utf8), Array(#"{"chat":"\#(chat)","p":\#(partition)}"#.utf8))
            _ = try producer.produce(topic, partition: partition, key: key.span, value: value.span, tag: 0)
        }
        #expect(producer.flush(deadlineMs: 10_000) { _ in })
        _ = producer.close(deadlineMs: 1000) { _ in }
        let lines = try tail(["messages", "--json", "--from", "beginning", "--chat", "\(chat)"], count: 1)
        #expect(lines == [#"{"chat":"\#(chat)","p":\#(place)}"#])
    }

    @Test func `no such topic, no such cluster, no such place: one line each`() throws {
        // One that makes no topics by being asked for them.
        let broker = try BrokerProcess()
        defer { broker.kill() }
        let gone = try FanoutProcess.run(["tail", "push", "--kafka", broker.address])
        #expect(gone.status == 1 && gone.text.split(separator: "\n").count == 1, "\(gone.text)")
        let nobody = try FanoutProcess.run(["tail", "push", "--kafka", "127.0.0.1:1"])
        #expect(nobody.status == 1 && nobody.text.split(separator: "\n").count == 1, "\(nobody.text)")
        let place = try FanoutProcess.run(["tail", "push", "--from", "yesterday"] + stage.options)
        #expect(place.status == 2 && place.text.contains("--from must be"), "\(place.text)")
        #expect(try FanoutProcess.run(["tail", "nonsense"] + stage.options).status == 2)
    }

    @Test
    func `topics check ends with 1 where a topic is missing or has another number of partitions, and create mends it`()
        throws
    {
        func topics(_ what: String, _ more: [String] = []) throws -> (status: Int32?, text: String) {
            try FanoutProcess.run(["topics", what] + stage.options + more)
        }
        #expect(try topics("check").status == 0)
        for outcome in try stage.admin.deleteTopics([stage.names[.rejected]]) { #expect(outcome.error == nil) }
        let missing = try topics("check")
        #expect(missing.status == 1 && missing.text.contains(stage.names[.rejected]), "\(missing.text)")
        #expect(try topics("create", ["--partitions", "3"]).status == 0)
        for outcome in try stage.admin.growTopics([(name: stage.names[.signals], partitions: 5)]) {
            #expect(outcome.error == nil)
        }
        let grown = try topics("check")
        #expect(grown.status == 1 && grown.text.contains(stage.names[.signals]), "\(grown.text)")
        let described = try topics("describe")
        #expect(described.status == 0 && Topic.allCases.allSatisfy { described.text.contains(stage.names[$0]) })
    }
}
