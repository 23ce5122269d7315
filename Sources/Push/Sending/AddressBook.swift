import PostgresClient
import Store
import System
import Wire

/// What Postgres knows of the people who are to be told: whether they want to be, what they have not read, and how their
/// devices are reached. Asked for many notices at once, in one round trip. On the loop's thread only.
///
/// When the database does not answer, everybody is told what the log has, through the webhook: a notification too many is
/// better than a message missed.
final class AddressBook {
    /// A notice and what was found out about it.
    struct Entry {
        /// Without the chats that are unwanted or read; with none left there is nothing to tell.
        var notice: Notice
        var unwanted: [RecordPosition] = []
        var read: [RecordPosition] = []
        var subscriptions: [PushDevices.Subscription] = []
        var tokens: [PushDevices.Token] = []
    }

    private let channel: PostgresChannel
    private let asksForSubscriptions: Bool
    private let asksForTokens: Bool
    /// Notices that are being asked about.
    private(set) var pending = 0

    init(_ url: String, on loop: EventLoop, asksForSubscriptions: Bool, asksForTokens: Bool) {
        var options = PostgresChannel.Options()
        // Notices wait meanwhile, and are told without it after that.
        options.answerTimeoutMs = 2000
        options.connectTimeoutMs = 2000
        channel = PostgresChannel(url, on: loop, options)
        channel.connect()
        self.asksForSubscriptions = asksForSubscriptions
        self.asksForTokens = asksForTokens
    }

    private var wasLastPingLost = false
    var isAway: Bool { !channel.isReady || wasLastPingLost }

    /// A server that is frozen keeps its connections.
    func ping() {
        channel.query("SELECT 1") { [weak self] result in
            if case .failure = result { self?.wasLastPingLost = true } else { self?.wasLastPingLost = false }
        }
    }

    func close() { channel.close() }

    func look(_ notices: [Notice], _ done: @escaping ([Entry]) -> Void) {
        pending += notices.count
        var wishes: [PushWish] = []
        var entries = notices.map { Entry(notice: $0) }
        var left = 3
        func answered() {
            left -= 1
            guard left == 0 else { return }
            pending -= notices.count
            Self.apply(wishes, to: &entries)
            done(entries)
        }
        let users = notices.map(\.user)
        let counts = notices.map(\.chats.count)
        let people = zip(users, counts).flatMap { Array(repeating: $0, count: $1) }
        ask(PushWish.of(people, in: notices.flatMap { $0.chats.map(\.chat) })) {
            wishes = $0
            answered()
        }
        ask(asksForSubscriptions ? PushDevices.subscriptions(of: users) : nil) {
            for row in $0 where entries.indices.contains(row.place - 1) {
                entries[row.place - 1].subscriptions.append(row.value)
            }
            answered()
        }
        ask(asksForTokens ? PushDevices.tokens(of: users) : nil) {
            for row in $0 where entries.indices.contains(row.place - 1) {
                entries[row.place - 1].tokens.append(row.value)
            }
            answered()
        }
    }

    func forget(_ subscription: PushDevices.Subscription, of user: UserID) {
        run(PushDevices.forget(subscription, of: user))
    }

    func forget(_ token: PushDevices.Token, of user: UserID) { run(PushDevices.forget(token, of: user)) }

    /// One that is not removed now is gone at the next notice too, and removed then.
    private func run(_ statement: Store.Statement<Never>) {
        channel.query(PostgresStatement(statement.name, statement.sql), statement.parameters) { _ in }
    }

    private func ask<Row>(_ statement: Store.Statement<Row>?, _ body: @escaping ([Row]) -> Void) {
        guard let statement else { return body([]) }
        channel.query(PostgresStatement(statement.name, statement.sql), statement.parameters) { result in
            if case .success(let answer) = consume result {
                body((try? statement.rows(of: answer)) ?? [])
            } else {
                body([])
            }
        }
    }

    private static func apply(_ wishes: [PushWish], to entries: inout [Entry]) {
        var known: [Int: PushWish] = [:]
        for wish in wishes { known[wish.place] = wish }
        guard !known.isEmpty else { return }
        var place = 0
        for index in entries.indices {
            let chats = entries[index].notice.chats
            var (unwanted, read): (Set<ChatID>, Set<ChatID>) = ([], [])
            for (number, part) in chats.enumerated() {
                place += 1
                guard let wish = known[place] else { continue }
                entries[index].notice.chats[number].unread = wish.unread
                if wish.isUnwanted {
                    unwanted.insert(part.chat)
                } else if wish.readSeq >= part.lastSeq {
                    read.insert(part.chat)
                }
            }
            (entries[index].notice, entries[index].unwanted) = entries[index].notice.without {
                unwanted.contains($0.chat)
            }
            (entries[index].notice, entries[index].read) = entries[index].notice.without { read.contains($0.chat) }
        }
    }
}
