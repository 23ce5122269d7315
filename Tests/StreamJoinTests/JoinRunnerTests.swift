import KafkaClient
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
}
