//! The manual: pages for operators, and the specification that comments in the source cite.
//!
//! Each page is a file in `src/manual/`, readable as it is where the repository is browsed. In a
//! page, links to other pages are written `[files]` and defined at its end; here they are defined
//! in front of it, as links to modules, and the first definition of a link counts.
//!
//! Specification, cited as "manual: protocol 2.3":
//!
//! - [`protocol`]: the wire: transport, messages, errors, order, closes
//! - [`rules`]: nameplates, mailboxes, sides, crowding, expiry
//! - [`files`]: the databases, their tables and versions
//! - [`durability`]: what survives which failure; backup and privacy
//! - [`command_line`]: options, endpoints, signals, exit statuses, log
//! - [`limits`]: every bound that a client can meet
//!
//! For operators: [`options`], [`subcommands`], [`migrating`], [`deployment`], [`hosting`],
//! [`proxies`], [`members`], [`monitoring`], [`clients`], [`reloading`], [`proof_of_work`],
//! [`extensions`], [`capacity`], [`attacks`].
//! For authors of clients: [`testing`]. For work on the server itself: [`developing`].

/// Makes a module for each page.
macro_rules! pages {
    ($($page:ident)*) => {
        pages!(@each ($($page)*) $($page)*);
    };
    (@each $all:tt $($page:ident)*) => {
        $(pages!(@one $page $all);)*
    };
    (@one $page:ident ($($link:ident)*)) => {
        #[doc = concat!(
            $("[", stringify!($link), "]: crate::manual::", stringify!($link), "\n",)*
            "\n",
            include_str!(concat!(stringify!($page), ".md")),
        )]
        pub mod $page {}
    };
}

pages! {
    attacks capacity clients command_line deployment developing durability extensions files
    hosting limits members migrating monitoring options proof_of_work protocol proxies reloading
    rules subcommands testing
}
