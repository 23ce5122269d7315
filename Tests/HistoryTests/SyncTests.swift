import Foundation
import PostgresClient
import Store
import TestSupport
import Testing

@Suite struct SyncTests {
    /// `FANOUT_SEED` runs one world alone.
    private static let worlds = ProcessInfo.processInfo.environment["FANOUT_SEED"] == nil ? 200 : 1

    @Test func `whenever devices leave and come back among sends, none misses a message and each chat is in order`()
        throws
    {
        let first = SeededGenerator.freshSeed()
        print("seeds from \(first) (sync among sends; FANOUT_SEED=n runs one again)")
        var store = try StoreConnection(try PostgresCluster.shared().freshDatabase(migrated: true))
        // The versions of chats are for others.
        try store.postgres.execute("ALTER TABLE members DISABLE TRIGGER USER")
        var histories = 0
        var cuts = 0
        for round in 0..<UInt64(Self.worlds) {
            try store.postgres.execute("TRUNCATE messages, chat_activity, sink_marks, sink_progress")
            let world = try SyncWorld(seed: first &+ round, &store)
            for _ in 0..<250 { try world.step(&store) }
            try world.settle(&store)
            world.check()
            histories += world.historyCount
            cuts += world.cutCount
        }
        #expect(Self.worlds == 1 || histories > Self.worlds / 2 && cuts > 0, "\(histories), \(cuts)")
    }
}
