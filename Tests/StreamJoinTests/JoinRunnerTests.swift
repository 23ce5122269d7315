import KafkaClient
import PostgresClient
import Runtime
import StreamJoin
import System
import TestSupport
import Testing
import Wire

@Suite(.serialized) struct JoinRunnerTests {
    @Test func `a message reaches each member once, and restarts change nothing`() throws {
        let bench = try Bench()
        let chat = ChatID.random()
        let users = (0..<9).map { _ in UserID.random() }
        try bench.create(chat, users)
        try bench.write(.incoming, chat, IncomingMessage.text("one", from: users[0], in: chat))
        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        // With and without checkpoints; the second start of each finds what the first has left.
        for round in 0..<2 {
            var configuration = bench.configuration()
            configuration.stateDirectory = directory
            try running(configuration) { _ in
                try bench.write(.incoming, chat, IncomingMessage.text("two", from: users[1], in: chat, metaVersion: 1))
                try bench.until { $0.messages.count == 2 + round }
            }
        }
        #expect(try Directory.list(directory) == ["members-join.checkpoint"])
        try running(bench.configuration()) { _ in
            let late = UserID.random()
            try bench.write(
                .incoming, chat, IncomingMessage.text("held", from: late, in: chat, metaVersion: 2))
            try bench.write(.incoming, chat, IncomingMessage.text("nobody", from: .random(), in: chat))
            try bench.create(chat, [late], version: 2, tx: 2)
            try bench.until { $0.messages.count == 4 && $0.rejected.count == 1 }
            try bench.until { bench in
                bench.deliveries.filter { $0.record.contains(#""text":"held""#) }.flatMap(\.to).count == 10
            }
            #expect(bench.deliveries.contains { $0.to.contains(late) && $0.record.contains(#""change":"added""#) })
        }
        var perSource: [String: [UserID]] = [:]
        for delivery in bench.deliveries where delivery.record.contains(#""type":"message""#) {
            for user in delivery.to {
                #expect(user.partition(count: 4) == delivery.partition)
                perSource[delivery.source, default: []].append(user)
            }
        }
        let partition = chat.partition(count: 4)
        for offset in 0..<3 {
            let to = perSource["\(bench.names[.incoming])/\(partition)/\(offset)"] ?? []
            #expect(to.count == 9 && Set(to) == Set(users))
        }
        #expect(perSource["\(bench.names[.incoming])/\(partition)/3"]?.count == 10)
        #expect(perSource.count == 4)
    }

    @Test(arguments: [false, true])
    func `chat.incoming made again is begun anew, under a running join or while it is away, and seq goes on upward`(
        isAway: Bool
    ) throws {
        let bench = try Bench(partitions: 2)
        let chat = ChatID.random()
        let users = (0..<5).map { _ in UserID.random() }
        try bench.create(chat, users)
        let database = try PostgresCluster.shared().freshDatabase(migrated: true)
        var configuration = bench.configuration()
        configuration.postgres = database
        var join = RunningJoin(configuration)
        defer { join.stop() }
        for index in 0..<20 {
            try bench.write(.incoming, chat, IncomingMessage.text("before \(index)", from: users[0], in: chat))
        }
        try bench.until { $0.messages.count == 20 }
        #expect(join.waitUntilReady())
        if isAway { #expect(join.stop() == nil) }
        let admin = try Admin(bench.kafka)
        defer { admin.close(deadlineMs: 1000) }
        let topic = bench.names[.incoming]
        #expect(try admin.deleteTopics([topic]).allSatisfy { $0.error == nil })
        #expect(try admin.createTopics([NewTopic(topic, partitions: 2)]).allSatisfy { $0.error == nil })
        if isAway { join = RunningJoin(configuration) }
        for index in 0..<20 {
            try bench.write(.incoming, chat, IncomingMessage.text("after \(index)", from: users[1], in: chat))
        }
        try bench.until { $0.messages.count == 40 }
        try bench.until { bench in
            bench.deliveries.filter { $0.record.contains(#""text":"after 19""#) }.flatMap(\.to).count == 5
        }
        let seqs = try bench.messages.map { try AcceptedMessage(decoding: Array($0.utf8).span).seq }
        #expect(seqs == seqs.sorted() && LogRun.generation(ofSeq: seqs[39]) == 1, "\(seqs)")
        #expect(Set(bench.deliveries.compactMap(\.tag)).count >= 2)
        #expect(
            join.text.contains("the topic was made again") && join.text.contains("topic=chat.incoming"), "\(join.text)")
        var postgres = try PostgresConnection(database)
        let runs = try postgres.query(
            "SELECT count(*) FROM log_runs WHERE topic = $1 AND generation = 1", [.text(topic)])
        #expect(runs.int(0, 0) == 2)
    }

    @Test func `a database from before does not make seq go back`() throws {
        let bench = try Bench(partitions: 1)
        let chat = ChatID.random()
        let users = (0..<3).map { _ in UserID.random() }
        try bench.create(chat, users)
        // Of a log and a database that nobody knows any more.
        var json = JSONWriter()
        let source: [UInt8] = []
        let old = IncomingMessage(id: .random(), chat: chat, from: users[0], device: .random(), kind: .text)
        old.writeAccepted(seq: LogRun(generation: 3).seq(of: 70), ts: 1, to: &json, source: source.span)
        try bench.write(.messages, chat, json.bytes)
        var configuration = bench.configuration()
        configuration.postgres = try PostgresCluster.shared().freshDatabase(migrated: true)
        try running(configuration) { join in
            try bench.write(.incoming, chat, IncomingMessage.text("on", from: users[0], in: chat))
            try bench.until { $0.messages.count == 2 }
            let bytes = Array(bench.messages[1].utf8)
            let seq = try AcceptedMessage(decoding: bytes.span).seq
            #expect(LogRun.generation(ofSeq: seq) == 4)
            #expect(join.text.contains("numbered above the end of chat.incoming"), "\(join.text)")
        }
    }
}
