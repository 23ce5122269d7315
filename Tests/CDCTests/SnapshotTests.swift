import Foundation
import PostgresClient
import TestSupport
import Testing

@testable import CDC

@Suite struct SnapshotTests {
    @Test func `rows with bytes as their key survive a second snapshot, and those that are gone do not`() throws {
        let setup = try Setup()
        let topic = TestKafka.unique("blobs")
        try createTopic(topic, partitions: 2, kafka: setup.kafka)
        try setup.postgres.execute(
            """
            CREATE TABLE blobs (id bytea PRIMARY KEY, n int);
            ALTER PUBLICATION p ADD TABLE blobs;
            INSERT INTO blobs SELECT decode(lpad(to_hex(n * 7919), 8, '0') || 'ff00', 'hex'), n FROM generate_series(1, 40) n
            """)
        let routes = ["--table", "blobs=\(topic):id"]
        #expect(try setup.start(routes).waitForOutput("streaming"))
        #expect(setup.cdc?.terminate() == 0)
        #expect(try FoldedTopic(topic, kafka: setup.kafka).rows.count == 40)
        try setup.dropSlot()
        try setup.postgres.execute("DELETE FROM blobs WHERE n % 4 = 0")
        #expect(try setup.start(routes).waitForOutput("streaming"), "\(setup.cdc?.text ?? "")")
        let folded = try FoldedTopic(topic, kafka: setup.kafka)
        let numbers = folded.rows.values.compactMap { $0["n"] as? Int }.sorted()
        #expect(numbers == (1...40).filter { $0 % 4 != 0 })
        #expect(folded.operations["d"] == 10, "\(folded.operations)")
    }

    @Test func `a snapshot that nobody makes is not reported as made`() throws {
        let setup = try Setup()
        try setup.postgres.execute("CREATE TABLE other (id int PRIMARY KEY); ALTER PUBLICATION p ADD TABLE other")
        let ask = [
            "cdc", "snapshot", "--postgres", setup.database, "--slot", setup.slot, "--publication", "p", "--table",
        ]
        #expect(try setup.start().waitForOutput("streaming"))
        let unrouted = try FanoutProcess.run(ask + ["other"])
        #expect(unrouted.status == 1 && unrouted.text.contains("no topic for public.other"), "\(unrouted.text)")
        #expect(setup.cdc?.terminate() == 0)
        let waiting = try FanoutProcess(ask + ["keyed"])
        #expect(waiting.waitForOutput("asked for a snapshot"), "\(waiting.text)")
        try setup.dropSlot()
        #expect(waiting.waitForExit() == 1, "\(waiting.text)")
        #expect(waiting.text.contains("has gone"), "\(waiting.text)")
    }

    @Test func `a snapshot is made by the reader of the slot that was asked, and no other answers`() throws {
        let setup = try Setup()
        let (topic, second) = (TestKafka.unique("others"), setup.slot + "_second")
        try createTopic(topic, partitions: 1, kafka: setup.kafka)
        try setup.postgres.execute("CREATE TABLE other (id int PRIMARY KEY); ALTER PUBLICATION p ADD TABLE other")
        #expect(try setup.start().waitForOutput("streaming"))
        let reader = try FanoutProcess([
            "cdc", "--postgres", setup.database, "--kafka", setup.kafka, "--publication", "p", "--own-tables", "no",
            "--slot", second, "--table", "other=\(topic):id",
        ])
        defer {
            reader.kill()
            try? setup.dropSlot(second)
        }
        #expect(reader.waitForOutput("streaming"), "\(reader.text)")
        try setup.postgres.execute("ALTER PUBLICATION p DROP TABLE other; INSERT INTO other VALUES (1)")
        try setup.postgres.execute("ALTER PUBLICATION p ADD TABLE other")
        let ask = ["cdc", "snapshot", "--postgres", setup.database, "--publication", "p"]
        for (slot, table) in [(setup.slot, "keyed"), (second, "other")] {
            let asked = try FanoutProcess.run(ask + ["--slot", slot, "--table", table])
            #expect(asked.status == 0, "\(slot): \(asked.text)")
        }
        #expect(try FoldedTopic(topic, kafka: setup.kafka).rows.count == 1)
        for text in [setup.cdc?.text ?? "", reader.text] {
            #expect(!text.contains("a snapshot was asked for"), "\(text)")
        }
    }

    @Test func `a search for what is gone remembers a bounded number of keys, and finds all`() throws {
        let route = TableRoute(table: "t", topic: "topic", key: ["id"])
        let column = Relation.Column(isKey: true, name: "id", type: 23)
        let relation = Relation(id: 1, schema: "public", name: "t", identity: .default, columns: [column])
        let encoder = try TableEncoder(relation, route: route, topic: 0, partitions: 1, database: "d")
        var found: Set<Int> = []
        var batches = 0
        // Every key is seen twice, odd ones are gone, and every fifth has been deleted already: it may be told again.
        var search = GoneSearch(tables: [.init(encoder: encoder, types: ["integer"], rowFilter: nil)]) { keys, _ in
            batches += 1
            #expect(keys.count <= 2000)
            return keys.indices.filter { Int(keys[$0][0]).map { !$0.isMultiple(of: 2) } ?? false }
        } found: { entry, _ in
            let number = String(decoding: entry.key, as: UTF8.self).filter(\.isNumber)
            found.insert(Int(number) ?? -1)
        }
        for round in 0..<2 {
            for number in 0..<20_000 {
                let key = #"{"id":\#(number)}"#
                let value = #"{"op":"c","before":null,"after":{"id":\#(number)},"source":{"table":"t"}}"#
                try search.see("topic", 0, key.utf8.span, value.utf8.span)
                if round == 1, number.isMultiple(of: 5) { try search.see("topic", 0, key.utf8.span, nil) }
            }
        }
        try search.finish()
        #expect(found == Set((0..<20_000).filter { !$0.isMultiple(of: 2) }) && batches >= 20)
    }
}
